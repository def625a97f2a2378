//! Checks a tree against a schema: names become columns, and every node gets a type.
//!
//! Long because the table of functions and their typing rules are in one place.

use std::collections::HashSet;
use std::fmt;

use arrow_schema::{DataType, Schema, TimeUnit};

use crate::error::ExprError;
use crate::parse::{Arith, Compare, Expr, Literal, Node, Span};
use crate::text::Pattern;
use crate::time::{DAY_US, parse_date, parse_timestamp};

/// The type of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `boolean`
    Bool,
    /// `int64`, and every narrower integer
    Int,
    /// `float64` and `float32`
    Float,
    /// `utf8`
    Text,
    /// `date32`
    Date,
    /// A timestamp, in microseconds.
    Time,
}

impl Type {
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::UInt64 => Self::Int,
            DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Utf8 => Self::Text,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(..) => Self::Time,
            _ => return None,
        })
    }

    /// The Arrow type of a column of this type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Float)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "boolean",
            Self::Int => "an integer",
            Self::Float => "a float",
            Self::Text => "text",
            Self::Date => "a date",
            Self::Time => "a timestamp",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Abs,
    Ceil,
    Floor,
    Round,
    Sqrt,
    Exp,
    Ln,
    Log10,
    Log2,
    Log1p,
    Expm1,
    Pow,
    Sign,
    Least,
    Greatest,
    IsNan,
    Lower,
    Upper,
    Trim,
    Length,
    Concat,
    Substr,
    StartsWith,
    EndsWith,
    Contains,
    Replace,
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Weekday,
    Epoch,
    Coalesce,
    NullIf,
    Div,
    Bucket,
}

/// The types that a function takes and returns.
enum Signature {
    /// One float to a float.
    Float,
    /// One number to the same type.
    Number,
    /// Two or more values of one type to that type.
    Same,
    /// Two floats to a float.
    Pair,
    /// Two integers to an integer.
    Integers,
    /// A date or a timestamp to an integer.
    Time,
    /// Texts, then integers, to a type: the number of texts, and the maximum number of integers.
    Text(usize, usize, Type),
}

const FUNCTIONS: [(&str, Function, Signature); 38] = {
    use Function as F;
    use Signature as S;
    [
        ("abs", F::Abs, S::Number),
        ("ceil", F::Ceil, S::Float),
        ("floor", F::Floor, S::Float),
        ("round", F::Round, S::Float),
        ("sqrt", F::Sqrt, S::Float),
        ("exp", F::Exp, S::Float),
        ("ln", F::Ln, S::Float),
        ("log10", F::Log10, S::Float),
        ("log2", F::Log2, S::Float),
        ("log1p", F::Log1p, S::Float),
        ("expm1", F::Expm1, S::Float),
        ("pow", F::Pow, S::Pair),
        ("sign", F::Sign, S::Number),
        ("least", F::Least, S::Same),
        ("greatest", F::Greatest, S::Same),
        ("is_nan", F::IsNan, S::Float),
        ("lower", F::Lower, S::Text(1, 0, Type::Text)),
        ("upper", F::Upper, S::Text(1, 0, Type::Text)),
        ("trim", F::Trim, S::Text(1, 0, Type::Text)),
        ("length", F::Length, S::Text(1, 0, Type::Int)),
        ("concat", F::Concat, S::Text(usize::MAX, 0, Type::Text)),
        ("substr", F::Substr, S::Text(1, 2, Type::Text)),
        ("starts_with", F::StartsWith, S::Text(2, 0, Type::Bool)),
        ("ends_with", F::EndsWith, S::Text(2, 0, Type::Bool)),
        ("contains", F::Contains, S::Text(2, 0, Type::Bool)),
        ("replace", F::Replace, S::Text(3, 0, Type::Text)),
        ("year", F::Year, S::Time),
        ("month", F::Month, S::Time),
        ("day", F::Day, S::Time),
        ("hour", F::Hour, S::Time),
        ("minute", F::Minute, S::Time),
        ("second", F::Second, S::Time),
        ("weekday", F::Weekday, S::Time),
        ("epoch", F::Epoch, S::Time),
        ("coalesce", F::Coalesce, S::Same),
        ("nullif", F::NullIf, S::Same),
        ("div", F::Div, S::Integers),
        ("bucket", F::Bucket, S::Text(1, 1, Type::Int)),
    ]
};

/// Functions with a special form.
const SPECIAL: [&str; 1] = ["if"];

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    Column(usize),
    Const(Literal),
    Negate(Box<Typed>),
    Not(Box<Typed>),
    Arith(Arith, Box<Typed>, Box<Typed>),
    Compare(Compare, Box<Typed>, Box<Typed>),
    And(Box<Typed>, Box<Typed>),
    Or(Box<Typed>, Box<Typed>),
    IsNull(Box<Typed>),
    Like(Box<Typed>, Pattern),
    Cast(Box<Typed>),
    Case(Vec<(Typed, Typed)>, Box<Typed>),
    Call(Function, Vec<Typed>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Typed {
    pub op: Op,
    pub ty: Type,
    pub span: Span,
}

/// An expression that fits a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub(crate) root: Typed,
    pub(crate) columns: Vec<String>,
}

impl Checked {
    /// The columns it reads, in the order in which [`Self::column`] and
    /// [`Self::mask`] take them.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The Arrow type of the result.
    pub fn data_type(&self) -> DataType {
        self.root.ty.data_type()
    }

    /// The type of the result.
    pub fn ty(&self) -> Type {
        self.root.ty
    }
}

impl Expr {
    /// The columns that it names, each once, in order.
    pub fn columns(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.visit(&mut |expr| {
            if let Node::Column(name) = &expr.node
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        });
        names
    }

    fn visit(&self, visit: &mut impl FnMut(&Self)) {
        visit(self);
        match &self.node {
            Node::Column(_) | Node::Literal(_) => {}
            Node::Negate(a) | Node::Not(a) | Node::IsNull(a) | Node::Like(a, _) | Node::Cast(a, _) => a.visit(visit),
            Node::Arith(_, a, b) | Node::Compare(_, a, b) | Node::And(a, b) | Node::Or(a, b) => {
                a.visit(visit);
                b.visit(visit);
            }
            Node::Case(arms, otherwise) => {
                for (condition, value) in arms {
                    condition.visit(visit);
                    value.visit(visit);
                }
                if let Some(otherwise) = otherwise {
                    otherwise.visit(visit);
                }
            }
            Node::Call(_, args) => args.iter().for_each(|arg| arg.visit(visit)),
        }
    }

    /// Checks the expression against a schema.
    ///
    /// # Errors
    /// When a column or a function does not exist, or types do not go together; with the span
    /// in the text.
    pub fn check(&self, schema: &Schema) -> Result<Checked, ExprError> {
        let mut checker = Checker { schema, columns: Vec::new() };
        let root = checker.any(self)?.known(Type::Bool);
        Ok(Checked { root, columns: checker.columns })
    }
}

/// A node whose type may be open: `null` takes the type of its context.
struct Open {
    op: Op,
    ty: Option<Type>,
    span: Span,
}

impl Open {
    fn known(self, otherwise: Type) -> Typed {
        Typed { op: self.op, ty: self.ty.unwrap_or(otherwise), span: self.span }
    }
}

struct Checker<'a> {
    schema: &'a Schema,
    columns: Vec<String>,
}

fn typed(op: Op, ty: Type, span: Span) -> Open {
    Open { op, ty: Some(ty), span }
}

fn to_float(node: Typed) -> Typed {
    match (node.ty, &node.op) {
        (Type::Float, _) => node,
        (_, Op::Const(Literal::Int(value))) => {
            Typed { op: Op::Const(Literal::Float(*value as f64)), ty: Type::Float, span: node.span }
        }
        _ => Typed { span: node.span, ty: Type::Float, op: Op::Cast(Box::new(node)) },
    }
}

/// A text literal next to a date or a timestamp is converted to one.
fn as_time(node: Typed, ty: Type) -> Result<Typed, ExprError> {
    let Op::Const(Literal::Text(text)) = &node.op else { return Ok(node) };
    let value = match ty {
        Type::Date => parse_date(text),
        Type::Time => parse_timestamp(text).map(|(micros, _)| micros),
        _ => return Ok(node),
    };
    let value = value.ok_or_else(|| {
        let example = if ty == Type::Date { "2025-01-31" } else { "2025-01-31 12:00:00" };
        ExprError::at(node.span, format!("`{text}` is not {ty}, such as '{example}'"))
    })?;
    Ok(Typed { op: Op::Const(Literal::Int(value)), ty, span: node.span })
}

/// Converts nodes to one type.
fn unify(nodes: Vec<Open>, span: Span) -> Result<(Vec<Typed>, Type), ExprError> {
    let mut ty = None;
    for node in &nodes {
        ty = match (ty, node.ty) {
            (None, found) => found,
            (known, None) => known,
            (Some(a), Some(b)) if a == b => Some(a),
            (Some(a), Some(b)) if a.is_number() && b.is_number() => Some(Type::Float),
            (Some(Type::Text), Some(b @ (Type::Date | Type::Time))) => Some(b),
            (Some(a @ (Type::Date | Type::Time)), Some(Type::Text)) => Some(a),
            (Some(Type::Date), Some(Type::Time)) | (Some(Type::Time), Some(Type::Date)) => Some(Type::Time),
            (Some(a), Some(b)) => {
                return Err(ExprError::at(span, format!("{a} and {b} do not go together")));
            }
        };
    }
    let ty = ty.unwrap_or(Type::Bool);
    let mut out = Vec::with_capacity(nodes.len());
    for node in nodes {
        let node = as_time(node.known(ty), ty)?;
        out.push(match (ty, node.ty) {
            (Type::Float, Type::Int) => to_float(node),
            (Type::Time, Type::Date) => Typed { span: node.span, ty, op: Op::Cast(Box::new(node)) },
            (a, b) if a == b => node,
            (a, b) => return Err(ExprError::at(node.span, format!("expected {a}, found {b}"))),
        });
    }
    Ok((out, ty))
}

impl Checker<'_> {
    fn any(&mut self, expr: &Expr) -> Result<Open, ExprError> {
        let span = expr.span;
        Ok(match &expr.node {
            Node::Literal(Literal::Null) => Open { op: Op::Const(Literal::Null), ty: None, span },
            Node::Literal(literal) => {
                let ty = match literal {
                    Literal::Bool(_) | Literal::Null => Type::Bool,
                    Literal::Int(_) => Type::Int,
                    Literal::Float(_) => Type::Float,
                    Literal::Text(_) => Type::Text,
                };
                typed(Op::Const(literal.clone()), ty, span)
            }
            Node::Column(name) => self.column(name, span)?,
            Node::Negate(inner) => {
                let inner = self.number(inner)?;
                let ty = inner.ty;
                typed(Op::Negate(Box::new(inner)), ty, span)
            }
            Node::Not(inner) => typed(Op::Not(Box::new(self.of(inner, Type::Bool)?)), Type::Bool, span),
            Node::And(a, b) => {
                let op = Op::And(Box::new(self.of(a, Type::Bool)?), Box::new(self.of(b, Type::Bool)?));
                typed(op, Type::Bool, span)
            }
            Node::Or(a, b) => {
                let op = Op::Or(Box::new(self.of(a, Type::Bool)?), Box::new(self.of(b, Type::Bool)?));
                typed(op, Type::Bool, span)
            }
            Node::IsNull(inner) => {
                let inner = self.any(inner)?.known(Type::Bool);
                typed(Op::IsNull(Box::new(inner)), Type::Bool, span)
            }
            Node::Like(inner, pattern) => {
                let inner = self.of(inner, Type::Text)?;
                typed(Op::Like(Box::new(inner), Pattern::new(pattern)), Type::Bool, span)
            }
            Node::Arith(op, a, b) => self.arith(*op, a, b, span)?,
            Node::Compare(op, a, b) => {
                let (a, b) = self.pair(a, b, span)?;
                typed(Op::Compare(*op, Box::new(a), Box::new(b)), Type::Bool, span)
            }
            Node::Cast(inner, name) => self.cast(inner, name, span)?,
            Node::Case(arms, otherwise) => self.case(arms, otherwise.as_deref(), span)?,
            Node::Call(name, args) => self.call(name, args, span)?,
        })
    }

    fn column(&mut self, name: &str, span: Span) -> Result<Open, ExprError> {
        let Ok(field) = self.schema.field_with_name(name) else {
            let names = self.schema.fields().iter().map(|field| field.name().clone());
            return Err(ExprError::unknown(span, "column", name, names));
        };
        let ty = Type::of(field.data_type()).ok_or_else(|| {
            ExprError::at(span, format!("column `{name}` is {}, which expressions cannot use", field.data_type()))
        })?;
        let index = self.columns.iter().position(|known| known == name).unwrap_or_else(|| {
            self.columns.push(name.to_owned());
            self.columns.len() - 1
        });
        Ok(typed(Op::Column(index), ty, span))
    }

    fn of(&mut self, expr: &Expr, ty: Type) -> Result<Typed, ExprError> {
        let node = as_time(self.any(expr)?.known(ty), ty)?;
        match (ty, node.ty) {
            (a, b) if a == b => Ok(node),
            (Type::Float, Type::Int) => Ok(to_float(node)),
            (a, b) => Err(ExprError::at(expr.span, format!("expected {a}, found {b}"))),
        }
    }

    fn number(&mut self, expr: &Expr) -> Result<Typed, ExprError> {
        let node = self.any(expr)?.known(Type::Float);
        if node.ty.is_number() {
            return Ok(node);
        }
        Err(ExprError::at(expr.span, format!("expected a number, found {}", node.ty)))
    }

    fn pair(&mut self, a: &Expr, b: &Expr, span: Span) -> Result<(Typed, Typed), ExprError> {
        let nodes = vec![self.any(a)?, self.any(b)?];
        let (mut nodes, _) = unify(nodes, span)?;
        match (nodes.pop(), nodes.pop()) {
            (Some(b), Some(a)) => Ok((a, b)),
            _ => Err(ExprError::at(span, "expected two values")),
        }
    }

    fn arith(&mut self, op: Arith, a: &Expr, b: &Expr, span: Span) -> Result<Open, ExprError> {
        let mut a = self.number(a)?;
        let mut b = self.number(b)?;
        let ty = if op == Arith::Div || a.ty == Type::Float || b.ty == Type::Float { Type::Float } else { Type::Int };
        if ty == Type::Float {
            a = to_float(a);
            b = to_float(b);
        }
        Ok(typed(Op::Arith(op, Box::new(a), Box::new(b)), ty, span))
    }

    fn cast(&mut self, inner: &Expr, name: &str, span: Span) -> Result<Open, ExprError> {
        let ty = match name.to_ascii_lowercase().as_str() {
            "boolean" | "bool" => Type::Bool,
            "int64" | "int" | "integer" | "bigint" => Type::Int,
            "float64" | "float" | "double" => Type::Float,
            "utf8" | "text" | "string" | "varchar" => Type::Text,
            "date32" | "date" => Type::Date,
            "timestamp" => Type::Time,
            _ => {
                let names = ["boolean", "int64", "float64", "utf8", "date32", "timestamp"];
                return Err(ExprError::unknown(span, "type", name, names.iter().map(|n| (*n).to_owned())));
            }
        };
        let node = self.any(inner)?.known(ty);
        let possible = match (node.ty, ty) {
            (a, b) if a == b => return Ok(Open { op: node.op, ty: Some(ty), span }),
            (_, Type::Text) | (Type::Text, _) => true,
            (a, b) => {
                let plain = |t: Type| t.is_number() || t == Type::Bool;
                (plain(a) && plain(b)) || matches!((a, b), (Type::Date, Type::Time) | (Type::Time, Type::Date))
            }
        };
        if !possible {
            return Err(ExprError::at(span, format!("{} cannot be converted to {ty}", node.ty)));
        }
        Ok(typed(Op::Cast(Box::new(node)), ty, span))
    }

    fn case(&mut self, arms: &[(Expr, Expr)], otherwise: Option<&Expr>, span: Span) -> Result<Open, ExprError> {
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        for (condition, value) in arms {
            conditions.push(self.of(condition, Type::Bool)?);
            values.push(self.any(value)?);
        }
        values.push(match otherwise {
            Some(otherwise) => self.any(otherwise)?,
            None => Open { op: Op::Const(Literal::Null), ty: None, span },
        });
        let (mut values, ty) = unify(values, span)?;
        let Some(last) = values.pop() else { return Err(ExprError::at(span, "`case` needs a value")) };
        Ok(typed(Op::Case(conditions.into_iter().zip(values).collect(), Box::new(last)), ty, span))
    }

    #[expect(clippy::too_many_lines, reason = "one match over all functions")]
    fn call(&mut self, name: &str, args: &[Expr], span: Span) -> Result<Open, ExprError> {
        if name == "in" {
            return self.within(args, span);
        }
        if name == "if" {
            return match args {
                [condition, yes, no] => self.case(&[(condition.clone(), yes.clone())], Some(no), span),
                _ => Err(ExprError::at(span, "`if` takes three values: a condition and the two to choose from")),
            };
        }
        let Some((_, function, signature)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
            let names = FUNCTIONS.iter().map(|(known, ..)| *known).chain(SPECIAL);
            return Err(ExprError::unknown(span, "function", name, names.map(str::to_owned)));
        };
        let wrong = |takes: &str| Err(ExprError::at(span, format!("`{name}` takes {takes}, not {}", args.len())));
        let function = *function;
        match signature {
            Signature::Number | Signature::Float => {
                let [arg] = args else { return wrong("one number") };
                let mut arg = self.number(arg)?;
                if matches!(signature, Signature::Float) {
                    arg = to_float(arg);
                }
                let ty = if function == Function::IsNan { Type::Bool } else { arg.ty };
                Ok(typed(Op::Call(function, vec![arg]), ty, span))
            }
            Signature::Pair => {
                let [a, b] = args else { return wrong("two numbers") };
                let args = vec![self.of(a, Type::Float)?, self.of(b, Type::Float)?];
                Ok(typed(Op::Call(function, args), Type::Float, span))
            }
            Signature::Integers => {
                let [a, b] = args else { return wrong("two integers") };
                let args = vec![self.of(a, Type::Int)?, self.of(b, Type::Int)?];
                Ok(typed(Op::Call(function, args), Type::Int, span))
            }
            Signature::Time => {
                let [arg] = args else { return wrong("one date or timestamp") };
                let node = self.any(arg)?.known(Type::Time);
                if !matches!(node.ty, Type::Date | Type::Time) {
                    let message = format!("expected a date or a timestamp, found {}", node.ty);
                    return Err(ExprError::at(arg.span, message));
                }
                let node = if node.ty == Type::Date {
                    Typed { span: node.span, ty: Type::Time, op: Op::Cast(Box::new(node)) }
                } else {
                    node
                };
                Ok(typed(Op::Call(function, vec![node]), Type::Int, span))
            }
            Signature::Same => {
                if args.len() < 2 || (function == Function::NullIf && args.len() != 2) {
                    return wrong("two values or more");
                }
                let nodes = args.iter().map(|arg| self.any(arg)).collect::<Result<_, _>>()?;
                let (nodes, ty) = unify(nodes, span)?;
                let ordered = matches!(function, Function::Least | Function::Greatest);
                if ordered && !(ty.is_number() || matches!(ty, Type::Date | Type::Time)) {
                    return Err(ExprError::at(span, format!("`{name}` compares numbers or times, not {ty}")));
                }
                Ok(typed(Op::Call(function, nodes), ty, span))
            }
            Signature::Text(texts, integers, out) => {
                let least = if *texts == usize::MAX { 1 } else { texts + usize::from(*integers > 0) };
                let most = texts.saturating_add(*integers);
                if !(least..=most).contains(&args.len()) {
                    return wrong(match (least, most) {
                        (1, 1) => "one value",
                        (2, 2) => "two values",
                        (3, 3) => "three values",
                        (2, 3) => "two or three values",
                        _ => "one value or more",
                    });
                }
                let nodes = args
                    .iter()
                    .enumerate()
                    .map(|(i, arg)| self.of(arg, if i < *texts { Type::Text } else { Type::Int }));
                let nodes = nodes.collect::<Result<_, _>>()?;
                Ok(typed(Op::Call(function, nodes), *out, span))
            }
        }
    }

    /// `a in (b, c)` is `a = b or a = c`, built as a balanced tree so that a list of thousands
    /// does not nest deeply.
    fn within(&mut self, args: &[Expr], span: Span) -> Result<Open, ExprError> {
        let nodes = args.iter().map(|arg| self.any(arg)).collect::<Result<_, _>>()?;
        let (mut nodes, _) = unify(nodes, span)?;
        let value = nodes.remove(0);
        let mut seen = HashSet::new();
        let mut tests: Vec<Typed> = nodes
            .into_iter()
            .filter(|item| seen.insert(format!("{:?}", item.op)))
            .map(|item| Typed {
                op: Op::Compare(Compare::Eq, Box::new(value.clone()), Box::new(item)),
                ty: Type::Bool,
                span,
            })
            .collect();
        while tests.len() > 1 {
            let mut joined = Vec::with_capacity(tests.len().div_ceil(2));
            let mut rest = tests.into_iter();
            while let Some(a) = rest.next() {
                joined.push(match rest.next() {
                    Some(b) => Typed { op: Op::Or(Box::new(a), Box::new(b)), ty: Type::Bool, span },
                    None => a,
                });
            }
            tests = joined;
        }
        match tests.pop() {
            Some(test) => Ok(Open { op: test.op, ty: Some(Type::Bool), span }),
            None => Err(ExprError::at(span, "`in` needs a value to compare with")),
        }
    }
}

/// Days to microseconds, for a date that becomes a timestamp.
pub(crate) fn days_to_micros(days: i64) -> Option<i64> {
    days.checked_mul(DAY_US)
}
