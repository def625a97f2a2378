//! Parses tokens into a tree.

use crate::error::ExprError;
use crate::token::{Spanned, Token, tokens};

/// The maximum nesting depth of an expression: guests have small stacks.
const MAX_DEPTH: usize = 200;

pub(crate) type Span = (usize, usize);

/// An expression as written, not yet checked against a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    pub(crate) node: Node,
    pub(crate) span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Column(String),
    Literal(Literal),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Arith(Arith, Box<Expr>, Box<Expr>),
    Compare(Compare, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    IsNull(Box<Expr>),
    Like(Box<Expr>, String),
    Cast(Box<Expr>, String),
    Case(Vec<(Expr, Expr)>, Option<Box<Expr>>),
    Call(String, Vec<Expr>),
}

/// Parses an expression.
///
/// # Errors
/// When the text is not an expression, with the span in the text.
pub fn parse(source: &str) -> Result<Expr, ExprError> {
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0, end: source.len() };
    let expr = parser.or()?;
    match parser.tokens.get(parser.next) {
        None => Ok(expr),
        Some((_, span)) => {
            let rest = &source[span.0..span.1];
            Err(ExprError::at(*span, format!("expected the end of the expression, found `{rest}`")))
        }
    }
}

struct Parser {
    tokens: Vec<Spanned>,
    next: usize,
    depth: usize,
    end: usize,
}

const KEYWORDS: [&str; 19] = [
    "and", "or", "not", "in", "between", "like", "is", "null", "true", "false", "case", "when", "then", "else", "end",
    "cast", "as", "if", "select",
];

impl Parser {
    fn here(&self) -> Span {
        self.tokens.get(self.next).map_or((self.end, self.end), |(_, span)| *span)
    }

    fn mark(&mut self, marks: &[&'static str]) -> Option<&'static str> {
        match self.tokens.get(self.next) {
            Some((Token::Mark(mark), _)) if marks.contains(mark) => {
                self.next += 1;
                Some(mark)
            }
            _ => None,
        }
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        matches!(self.tokens.get(at), Some((Token::Word(found), _)) if found.eq_ignore_ascii_case(word))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(self.next, word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, what: &'static str) -> Result<(), ExprError> {
        if self.mark(&[what]).is_some() || self.word(what) {
            return Ok(());
        }
        Err(ExprError::at(self.here(), format!("`{what}` is missing here")))
    }

    fn spanned(&self, start: usize, node: Node) -> Expr {
        let end = self.tokens[..self.next].last().map_or(start, |(_, span)| span.1);
        Expr { node, span: (start, end) }
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, ExprError>) -> Result<T, ExprError> {
        if self.depth >= MAX_DEPTH {
            return Err(ExprError::at(self.here(), format!("the expression nests deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// A chain of one kind of operator must not make a tree too deep for the stack of the code
    /// that walks it.
    fn grow(&self, links: &mut usize) -> Result<(), ExprError> {
        *links += 1;
        if self.depth + *links > MAX_DEPTH {
            return Err(ExprError::at(
                self.here(),
                format!("more than {MAX_DEPTH} operators in a row; use `in` or parentheses"),
            ));
        }
        Ok(())
    }

    fn or(&mut self) -> Result<Expr, ExprError> {
        let start = self.here().0;
        let mut left = self.nested(Self::and)?;
        let mut links = 0;
        while self.word("or") {
            self.grow(&mut links)?;
            let right = self.nested(Self::and)?;
            left = self.spanned(start, Node::Or(Box::new(left), Box::new(right)));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, ExprError> {
        let start = self.here().0;
        let mut left = self.not()?;
        let mut links = 0;
        while self.word("and") {
            self.grow(&mut links)?;
            let right = self.not()?;
            left = self.spanned(start, Node::And(Box::new(left), Box::new(right)));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr, ExprError> {
        let start = self.here().0;
        if self.word("not") {
            let inner = self.nested(Self::not)?;
            return Ok(self.spanned(start, Node::Not(Box::new(inner))));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, ExprError> {
        let start = self.here().0;
        let left = self.sum()?;
        if let Some(mark) = self.mark(&["=", "==", "!=", "<>", "<=", ">=", "<", ">"]) {
            let op = match mark {
                "=" | "==" => Compare::Eq,
                "!=" | "<>" => Compare::Ne,
                "<" => Compare::Lt,
                "<=" => Compare::Le,
                ">" => Compare::Gt,
                _ => Compare::Ge,
            };
            let right = self.sum()?;
            return Ok(self.spanned(start, Node::Compare(op, Box::new(left), Box::new(right))));
        }
        if self.word("is") {
            let negated = self.word("not");
            self.expect("null")?;
            let test = self.spanned(start, Node::IsNull(Box::new(left)));
            return Ok(self.negate_if(negated, start, test));
        }
        let negated = self.is_word(self.next, "not")
            && ["in", "between", "like"].iter().any(|word| self.is_word(self.next + 1, word));
        self.next += usize::from(negated);
        let test = if self.word("in") {
            self.expect("(")?;
            let mut items = vec![left];
            loop {
                items.push(self.nested(Self::or)?);
                if self.mark(&[","]).is_none() {
                    break;
                }
            }
            self.expect(")")?;
            self.spanned(start, Node::Call("in".to_owned(), items))
        } else if self.word("between") {
            let low = self.sum()?;
            self.expect("and")?;
            let high = self.sum()?;
            let above = self.spanned(start, Node::Compare(Compare::Ge, Box::new(left.clone()), Box::new(low)));
            let below = self.spanned(start, Node::Compare(Compare::Le, Box::new(left), Box::new(high)));
            self.spanned(start, Node::And(Box::new(above), Box::new(below)))
        } else if self.word("like") {
            match self.tokens.get(self.next) {
                Some((Token::Text(pattern), _)) => {
                    let pattern = pattern.clone();
                    self.next += 1;
                    self.spanned(start, Node::Like(Box::new(left), pattern))
                }
                _ => return Err(ExprError::at(self.here(), "`like` takes a pattern in single quotes")),
            }
        } else {
            return Ok(left);
        };
        Ok(self.negate_if(negated, start, test))
    }

    fn negate_if(&self, negated: bool, start: usize, test: Expr) -> Expr {
        if negated { self.spanned(start, Node::Not(Box::new(test))) } else { test }
    }

    fn sum(&mut self) -> Result<Expr, ExprError> {
        let start = self.here().0;
        let mut left = self.product()?;
        let mut links = 0;
        while let Some(mark) = self.mark(&["+", "-", "||"]) {
            self.grow(&mut links)?;
            let right = self.product()?;
            let node = match mark {
                "+" => Node::Arith(Arith::Add, Box::new(left), Box::new(right)),
                "-" => Node::Arith(Arith::Sub, Box::new(left), Box::new(right)),
                _ => Node::Call("concat".to_owned(), vec![left, right]),
            };
            left = self.spanned(start, node);
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Expr, ExprError> {
        let start = self.here().0;
        let mut left = self.unary()?;
        let mut links = 0;
        while let Some(mark) = self.mark(&["*", "/", "%"]) {
            self.grow(&mut links)?;
            let op = match mark {
                "*" => Arith::Mul,
                "/" => Arith::Div,
                _ => Arith::Rem,
            };
            let right = self.unary()?;
            left = self.spanned(start, Node::Arith(op, Box::new(left), Box::new(right)));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, ExprError> {
        let start = self.here().0;
        if self.mark(&["-"]).is_some() {
            if let Some((Token::Least, _)) = self.tokens.get(self.next) {
                self.next += 1;
                return Ok(self.spanned(start, Node::Literal(Literal::Int(i64::MIN))));
            }
            let inner = self.nested(Self::unary)?;
            let node = match inner.node {
                Node::Literal(Literal::Int(value)) => Node::Literal(Literal::Int(value.wrapping_neg())),
                Node::Literal(Literal::Float(value)) => Node::Literal(Literal::Float(-value)),
                _ => Node::Negate(Box::new(inner)),
            };
            return Ok(self.spanned(start, node));
        }
        if self.mark(&["+"]).is_some() {
            return self.nested(Self::unary);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr, ExprError> {
        let (start, end) = self.here();
        let Some((token, _)) = self.tokens.get(self.next).cloned() else {
            return Err(ExprError::at((start, end), "expected a value, but the expression ends"));
        };
        self.next += 1;
        let node = match token {
            Token::Int(value) => Node::Literal(Literal::Int(value)),
            Token::Least => {
                let message = "`9223372036854775808` has more than 64 bits; write it with a `.` for a float";
                return Err(ExprError::at((start, end), message));
            }
            Token::Float(value) => Node::Literal(Literal::Float(value)),
            Token::Text(text) => Node::Literal(Literal::Text(text)),
            Token::Quoted(name) => Node::Column(name),
            Token::Mark("(") => {
                let inner = self.nested(Self::or)?;
                self.expect(")")?;
                return Ok(Expr { span: (start, self.tokens[self.next - 1].1.1), ..inner });
            }
            Token::Mark(mark) => {
                return Err(ExprError::at((start, end), format!("expected a value, found `{mark}`")));
            }
            Token::Word(word) => return self.named(start, word),
        };
        Ok(self.spanned(start, node))
    }

    fn named(&mut self, start: usize, word: String) -> Result<Expr, ExprError> {
        let lower = word.to_ascii_lowercase();
        let node = match lower.as_str() {
            "true" => Node::Literal(Literal::Bool(true)),
            "false" => Node::Literal(Literal::Bool(false)),
            "null" => Node::Literal(Literal::Null),
            "case" => self.case()?,
            "cast" => {
                self.expect("(")?;
                let inner = self.nested(Self::or)?;
                self.expect("as")?;
                let at = self.here();
                let Some((Token::Word(name), _)) = self.tokens.get(self.next).cloned() else {
                    return Err(ExprError::at(at, "`cast` takes a type after `as`"));
                };
                self.next += 1;
                self.expect(")")?;
                Node::Cast(Box::new(inner), name)
            }
            _ if self.mark(&["("]).is_some() => {
                let mut args = Vec::new();
                while self.mark(&[")"]).is_none() {
                    if !args.is_empty() {
                        self.expect(",")?;
                    }
                    args.push(self.nested(Self::or)?);
                }
                Node::Call(lower, args)
            }
            _ if KEYWORDS.contains(&lower.as_str()) => {
                let message = format!("expected a value, found `{word}`; a column of that name is written \"{word}\"");
                return Err(ExprError::at((start, start + word.len()), message));
            }
            _ => Node::Column(word),
        };
        Ok(self.spanned(start, node))
    }

    fn case(&mut self) -> Result<Node, ExprError> {
        let mut arms = Vec::new();
        while self.word("when") {
            let condition = self.nested(Self::or)?;
            self.expect("then")?;
            arms.push((condition, self.nested(Self::or)?));
        }
        if arms.is_empty() {
            return Err(ExprError::at(self.here(), "`case` needs a `when`"));
        }
        let otherwise = if self.word("else") { Some(Box::new(self.nested(Self::or)?)) } else { None };
        self.expect("end")?;
        Ok(Node::Case(arms, otherwise))
    }
}
