//! `host graph`: the steps of a pipeline and what connects them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use millrace_engine::pipeline::{Pick, Pipeline, Reference};
use millrace_engine::{RunMode, pipeline};
use serde_json::{Value, json};

use crate::args::{GraphArgs, GraphFormat};
use crate::render::{self, diagnostic};
use crate::{commands, exit};

struct Drawing {
    /// Name, second line, and whether it is a source.
    boxes: Vec<(String, String, bool)>,
    /// From, to, and label.
    arrows: Vec<(usize, usize, String)>,
}

/// Draws a pipeline. Only the pipeline file is read.
pub fn run(args: &GraphArgs) -> u8 {
    let store = match commands::open(&args.pipeline.store) {
        Ok(store) => store,
        Err(code) => return code,
    };
    // Loaded once, so that the pipeline is known to be valid.
    let checked = args.pipeline.options(store, RunMode::Plan).map(|options| millrace_engine::load(&options));
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
    if args.pipeline.json {
        render::out(&json(&drawing));
        return exit::DONE;
    }
    render::out(&match args.format {
        GraphFormat::Mermaid => mermaid(&drawing),
        GraphFormat::Dot => dot(&drawing),
        GraphFormat::Svg => svg(&drawing),
    });
    exit::DONE
}

/// Sources, steps and their connections, in one object.
fn json(drawing: &Drawing) -> String {
    let of = |wanted: bool, second: &'static str| -> Vec<Value> {
        let boxes = drawing.boxes.iter().filter(|(.., is_source)| *is_source == wanted);
        boxes.map(|(name, text, _)| json!({ "name": name, second: text })).collect()
    };
    let name = |index: &usize| &drawing.boxes[*index].0;
    let arrow = |(from, to, port): &(usize, usize, String)| json!({ "from": name(from), "to": name(to), "port": port });
    let arrows: Vec<Value> = drawing.arrows.iter().map(arrow).collect();
    json!({ "sources": of(true, "path"), "steps": of(false, "uses"), "connections": arrows }).to_string()
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
    let index: BTreeMap<String, usize> = boxes.iter().enumerate().map(|(i, (name, ..))| (name.clone(), i)).collect();
    let mut arrows = Vec::new();
    for step in &pipeline.steps {
        for (_, text, _) in &step.inputs {
            let Ok(reference) = Reference::parse(text) else { continue };
            let label = reference.port.as_ref().map_or_else(String::new, ToString::to_string);
            let to = index[step.name.as_str()];
            if let Some(from) = index.get(reference.name.as_str()) {
                arrows.push((*from, to, label));
            }
            if let Pick::Chosen(choice) = &reference.pick
                && let Some(from) = index.get(choice.as_str())
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

const WIDTH: f64 = 180.0;
const HEIGHT: f64 = 46.0;
const GAP: f64 = 28.0;
const DROP: f64 = 54.0;

/// The positions of boxes, and the paths of arrows: an arrow that passes a layer has a position of
/// its own there, so that it is drawn beside the boxes and not behind them.
struct Layout {
    /// Centres of boxes, then of the positions where arrows pass.
    x: Vec<f64>,
    layer: Vec<usize>,
    /// For each arrow the positions that it passes, from box to box.
    ways: Vec<Vec<usize>>,
    width: f64,
}

/// Layers by the longest path from a source; in a layer, positions near those of the inputs.
fn layout(drawing: &Drawing) -> Layout {
    let boxes = drawing.boxes.len();
    let mut layer = vec![0; boxes];
    for _ in 0..boxes {
        for (from, to, _) in &drawing.arrows {
            layer[*to] = layer[*to].max(layer[*from] + 1);
        }
    }
    let mut ways = Vec::new();
    for (from, to, _) in &drawing.arrows {
        let mut way = vec![*from];
        for passed in layer[*from] + 1..layer[*to] {
            way.push(layer.len());
            layer.push(passed);
        }
        way.push(*to);
        ways.push(way);
    }
    let steps: Vec<(usize, usize)> = ways.iter().flat_map(|way| way.windows(2).map(|two| (two[0], two[1]))).collect();
    let room = |i: usize| if i < boxes { WIDTH + GAP } else { GAP };
    let mut x = vec![0.0f64; layer.len()];
    let mut width = 0.0f64;
    for current in 0..layer.iter().max().map_or(0, |most| most + 1) {
        let mut members: Vec<(f64, usize)> = Vec::new();
        for member in (0..layer.len()).filter(|i| layer[*i] == current) {
            let before: Vec<f64> = steps.iter().filter(|(_, to)| *to == member).map(|(from, _)| x[*from]).collect();
            members.push((before.iter().sum::<f64>() / before.len().max(1) as f64, member));
        }
        members.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let all: f64 = members.iter().map(|(_, i)| room(*i)).sum();
        width = width.max(all);
        let mut left = -all / 2.0;
        for (_, i) in members {
            x[i] = left + room(i) / 2.0;
            left += room(i);
        }
    }
    x.iter_mut().for_each(|x| *x = (*x + width / 2.0 + GAP / 2.0).round());
    Layout { x, layer, ways, width: width + GAP }
}

fn svg(drawing: &Drawing) -> String {
    let Layout { x, layer, ways, width } = layout(drawing);
    let layers = layer.iter().max().map_or(0, |most| most + 1);
    let height = layers as f64 * (HEIGHT + DROP);
    let y = |i: usize| layer[i] as f64 * (HEIGHT + DROP) + GAP / 2.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#667\"/></marker></defs>"
    );
    for ((_, _, label), way) in drawing.arrows.iter().zip(&ways) {
        let mut path = format!("M{} {}", x[way[0]], y(way[0]) + HEIGHT);
        for two in way.windows(2) {
            let (from, to, y1, y2) = (x[two[0]], x[two[1]], y(two[0]) + HEIGHT, y(two[1]));
            let middle = (y1 + y2) / 2.0;
            let _ = write!(path, "C{from} {middle} {to} {middle} {to} {y2}");
            // Past the boxes of this layer.
            if two[1] >= drawing.boxes.len() {
                let _ = write!(path, "V{}", y2 + HEIGHT);
            }
        }
        let _ = write!(out, "\n<path d=\"{path}\" fill=\"none\" stroke=\"#667\" marker-end=\"url(#tip)\"/>");
        if let (false, [.., before, last]) = (label.is_empty(), way.as_slice()) {
            let _ = write!(
                out,
                "\n<text x=\"{}\" y=\"{}\" fill=\"#667\" font-size=\"10\" text-anchor=\"middle\">{}</text>",
                (x[*before] + x[*last]) / 2.0,
                y(*last) - DROP / 2.0,
                escape(label)
            );
        }
    }
    for (i, (name, detail, source)) in drawing.boxes.iter().enumerate() {
        let (fill, round) = if *source { ("#e8f1ff", 20) } else { ("#f6f7f9", 6) };
        let left = x[i] - WIDTH / 2.0;
        let _ = write!(
            out,
            "\n<rect x=\"{left}\" y=\"{}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"{round}\" fill=\"{fill}\" stroke=\"#99a\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#556\">{}</text>",
            y(i),
            x[i],
            y(i) + 19.0,
            escape(name),
            x[i],
            y(i) + 35.0,
            escape(detail)
        );
    }
    out.push_str("\n</svg>");
    out
}
