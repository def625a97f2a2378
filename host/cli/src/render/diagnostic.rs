//! Mistakes, with the lines they are on.

use std::fmt;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use millrace_engine::{Diagnostic, RunError};

struct Shown {
    diagnostic: Diagnostic,
    source: Option<NamedSource<String>>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Shown {}

impl miette::Diagnostic for Shown {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let first = self.diagnostic.spans.first()?.0.file.clone();
        let here = self.diagnostic.spans.iter().filter(move |(span, _)| span.file == first);
        Some(Box::new(here.map(|(span, label)| {
            // The beginning alone, when something spans many lines.
            let text = span.file.text.get(span.range.clone()).unwrap_or_default();
            let length = text.find('\n').unwrap_or(text.len());
            LabeledSpan::new(Some(label.clone()), span.range.start, length)
        })))
    }
}

/// Mistakes as text.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let colours = std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let source = diagnostic.spans.first().map(|(span, _)| {
            NamedSource::new(span.file.path.display().to_string(), span.file.text.clone()).with_language("toml")
        });
        // Places in a second file cannot be drawn into the first.
        let mut diagnostic = diagnostic.clone();
        if let Some((first, _)) = diagnostic.spans.first().cloned() {
            for (span, label) in diagnostic.spans.iter().filter(|(span, _)| span.file != first.file) {
                let line = span.file.text[..span.range.start].matches('\n').count() + 1;
                diagnostic.message.push_str(&format!(" ({label}: {}:{line})", span.file.path.display()));
            }
        }
        out.push_str("error");
        let shown = Shown { diagnostic, source };
        if handler.render_report(&mut out, &shown).is_err() {
            out.push_str(&shown.diagnostic.message);
        }
    }
    out.trim_end().to_owned()
}

/// Says why there was no run.
pub fn show(error: &RunError, json: bool) {
    match error {
        RunError::Invalid(diagnostics) => show_all(diagnostics, json),
        RunError::System(message) => {
            if json {
                super::out(&serde_json::json!({ "event": "error", "message": message }).to_string());
            } else {
                super::note(&format!("error: {message}"));
            }
        }
    }
}

/// Shows mistakes.
pub fn show_all(diagnostics: &[Diagnostic], json: bool) {
    if !json {
        super::note(&render(diagnostics));
        return;
    }
    for diagnostic in diagnostics {
        let spans: Vec<_> = diagnostic
            .spans
            .iter()
            .map(|(span, label)| {
                let before = &span.file.text[..span.range.start];
                let line = before.matches('\n').count() + 1;
                let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
                serde_json::json!({ "file": span.file.path, "line": line, "column": column, "label": label })
            })
            .collect();
        let line = serde_json::json!({
            "event": "error", "message": diagnostic.message, "help": diagnostic.help, "places": spans
        });
        super::out(&line.to_string());
    }
}
