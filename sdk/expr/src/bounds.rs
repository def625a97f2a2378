//! The bounds that a condition implies for single columns, for readers that can skip.

use crate::parse::{Compare, Expr, Literal, Node};

/// A range outside of which a column's value fails the whole condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The column.
    pub column: String,
    /// No value below this one passes.
    pub least: f64,
    /// No value above this one passes.
    pub greatest: f64,
}

impl Expr {
    /// Returns the ranges that contain every row that passes. Only comparisons of a column with
    /// a number that are joined by `and` give one.
    pub fn bounds(&self) -> Vec<Bound> {
        let mut out = Vec::new();
        collect(self, &mut out);
        out
    }
}

fn collect(expr: &Expr, out: &mut Vec<Bound>) {
    let number = |expr: &Expr| match &expr.node {
        Node::Literal(Literal::Int(value)) => Some(*value as f64),
        Node::Literal(Literal::Float(value)) => Some(*value),
        _ => None,
    };
    match &expr.node {
        Node::And(a, b) => {
            collect(a, out);
            collect(b, out);
        }
        Node::Compare(op, a, b) => {
            let (column, value, op) = match (&a.node, number(b), number(a), &b.node) {
                (Node::Column(column), Some(value), _, _) => (column, value, *op),
                (_, _, Some(value), Node::Column(column)) => (column, value, flipped(*op)),
                _ => return,
            };
            // The bound itself is included for `<` and `>`, too: coarse, but never wrong.
            let (least, greatest) = match op {
                Compare::Eq => (value, value),
                Compare::Lt | Compare::Le => (f64::NEG_INFINITY, value),
                Compare::Gt | Compare::Ge => (value, f64::INFINITY),
                Compare::Ne => return,
            };
            out.push(Bound { column: column.clone(), least, greatest });
        }
        _ => {}
    }
}

fn flipped(op: Compare) -> Compare {
    match op {
        Compare::Lt => Compare::Gt,
        Compare::Le => Compare::Ge,
        Compare::Gt => Compare::Lt,
        Compare::Ge => Compare::Le,
        other => other,
    }
}
