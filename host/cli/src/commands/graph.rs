//! `host graph`: the steps of a pipeline and what connects them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use millrace_engine::pipeline::{Pick, Pipeline, Reference};
use millrace_engine::{ExecuteMode, pipeline};

use crate::args::{GraphArgs, GraphFormat};
use crate::render::{self, diagnostic};
use crate::{commands, exit};

struct Drawing {
    /// Name, second line, and whether it is a source.
    boxes: Vec<(String, String, bool)>,
    /// From, to, and what it is called.
    arrows: Vec<(usize, usize, String)>,
}

/// Draws a pipeline. Nothing is read but the pipeline file.
pub fn run(args: &GraphArgs) -> u8 {
    let store = match commands::open(&args.pipeline.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    // Spread out once, so that what is drawn is known to hold together.
    let checked = args.pipeline.options(store, ExecuteMode::Plan).map(|options| millrace_engine::load(&options));
    match checked {
        Err(error) => {
            diagnostic::show_all(&[error], args.pipeline.json);
            return exit::WRONG;
        }
        Ok(Err(error)) => {
            diagnostic::show(&error, args.pipeline.json);
            return exit::WRONG;
        }
        Ok(Ok(_)) => {}
    }
    let drawing = match pipeline::read(&args.pipeline.pipeline) {
        Ok(pipeline) => drawing(&pipeline),
        Err(errors) => {
            diagnostic::show_all(&errors, args.pipeline.json);
            return exit::WRONG;
        }
    };
    render::out(&match args.format {
        GraphFormat::Mermaid => mermaid(&drawing),
        GraphFormat::Dot => dot(&drawing),
        GraphFormat::Svg => svg(&drawing),
    });
    exit::DONE
}

fn drawing(pipeline: &Pipeline) -> Drawing {
    let mut boxes = Vec::new();
    for source in &pipeline.sources {
        boxes.push((source.name.to_string(), source.path.0.clone(), true));
    }
    for step in &pipeline.steps {
        let instances: usize = step.matrix.iter().map(|(_, values, _)| values.len()).product();
        let times = if instances > 1 { format!(" × {instances}") } else { String::new() };
        boxes.push((step.name.to_string(), format!("{}{times}", step.uses.0), false));
    }
    let place: BTreeMap<String, usize> = boxes.iter().enumerate().map(|(i, (name, ..))| (name.clone(), i)).collect();
    let mut arrows = Vec::new();
    for step in &pipeline.steps {
        for (_, text, _) in &step.inputs {
            let Ok(reference) = Reference::parse(text) else { continue };
            let label = reference.port.as_ref().map_or_else(String::new, ToString::to_string);
            let to = place[step.name.as_str()];
            if let Some(from) = place.get(reference.name.as_str()) {
                arrows.push((*from, to, label));
            }
            if let Pick::Chosen(choice) = &reference.pick
                && let Some(from) = place.get(choice.as_str())
            {
                arrows.push((*from, to, "choice".to_owned()));
            }
        }
    }
    Drawing { boxes, arrows }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn mermaid(drawing: &Drawing) -> String {
    let mut out = String::from("flowchart TD");
    for (i, (name, detail, source)) in drawing.boxes.iter().enumerate() {
        let (open, close) = if *source { ("[(", ")]") } else { ("[", "]") };
        let _ = write!(out, "\n  n{i}{open}\"<b>{}</b><br/>{}\"{close}", escape(name), escape(detail));
    }
    for (from, to, label) in &drawing.arrows {
        let label = if label.is_empty() { String::new() } else { format!("|{}|", escape(label)) };
        let _ = write!(out, "\n  n{from} -->{label} n{to}");
    }
    out
}

fn dot(drawing: &Drawing) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut out = String::from("digraph pipeline {\n  node [shape=box, fontname=\"sans-serif\"];");
    for (i, (name, detail, source)) in drawing.boxes.iter().enumerate() {
        let shape = if *source { ", shape=cylinder" } else { "" };
        let label = quoted(&format!("{name}\n{detail}")).replace('\n', "\\n");
        let _ = write!(out, "\n  n{i} [label={label}{shape}];");
    }
    for (from, to, label) in &drawing.arrows {
        let _ = write!(out, "\n  n{from} -> n{to} [label={}];", quoted(label));
    }
    out.push_str("\n}");
    out
}

/// Layers by the longest way from a source; in a layer, boxes near what they read.
fn svg(drawing: &Drawing) -> String {
    const WIDTH: usize = 180;
    const HEIGHT: usize = 46;
    const GAP: usize = 28;
    const DROP: usize = 54;
    let count = drawing.boxes.len();
    let mut layer = vec![0; count];
    for _ in 0..count {
        for (from, to, _) in &drawing.arrows {
            layer[*to] = layer[*to].max(layer[*from] + 1);
        }
    }
    let layers = layer.iter().max().map_or(0, |most| most + 1);
    let mut column = vec![0.0f64; count];
    let mut widest = 1;
    for current in 0..layers {
        let mut members: Vec<usize> = (0..count).filter(|i| layer[*i] == current).collect();
        let near = |i: usize| {
            let before: Vec<f64> =
                drawing.arrows.iter().filter(|(_, to, _)| *to == i).map(|(from, ..)| column[*from]).collect();
            before.iter().sum::<f64>() / before.len().max(1) as f64
        };
        let places: BTreeMap<usize, f64> = members.iter().map(|i| (*i, near(*i))).collect();
        members.sort_by(|a, b| places[a].total_cmp(&places[b]).then(a.cmp(b)));
        widest = widest.max(members.len());
        let shift = (members.len() as f64 - 1.0) / 2.0;
        for (place, i) in members.into_iter().enumerate() {
            column[i] = place as f64 - shift;
        }
    }
    let width = widest * (WIDTH + GAP) + GAP;
    let height = layers * (HEIGHT + DROP);
    let x = |i: usize| (width as f64 / 2.0 + column[i] * (WIDTH + GAP) as f64).round();
    let y = |i: usize| (layer[i] * (HEIGHT + DROP) + GAP / 2) as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#667\"/></marker></defs>"
    );
    for (from, to, label) in &drawing.arrows {
        let (x1, y1, x2, y2) = (x(*from), y(*from) + HEIGHT as f64, x(*to), y(*to));
        let middle = (y1 + y2) / 2.0;
        let _ = write!(
            out,
            "\n<path d=\"M{x1} {y1}C{x1} {middle} {x2} {middle} {x2} {y2}\" fill=\"none\" stroke=\"#667\" marker-end=\"url(#tip)\"/>"
        );
        if !label.is_empty() {
            let _ = write!(
                out,
                "\n<text x=\"{}\" y=\"{middle}\" fill=\"#667\" font-size=\"10\" text-anchor=\"middle\">{}</text>",
                (x1 + x2) / 2.0,
                escape(label)
            );
        }
    }
    for (i, (name, detail, source)) in drawing.boxes.iter().enumerate() {
        let (fill, round) = if *source { ("#e8f1ff", 20) } else { ("#f6f7f9", 6) };
        let left = x(i) - WIDTH as f64 / 2.0;
        let _ = write!(
            out,
            "\n<rect x=\"{left}\" y=\"{}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"{round}\" fill=\"{fill}\" stroke=\"#99a\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#556\">{}</text>",
            y(i),
            x(i),
            y(i) + 19.0,
            escape(name),
            x(i),
            y(i) + 35.0,
            escape(detail)
        );
    }
    out.push_str("\n</svg>");
    out
}
