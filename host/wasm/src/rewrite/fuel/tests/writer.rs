//! Random programs that terminate: loops, branches of every kind, calls, bytes in bulk.

use std::fmt::Write as _;

/// Writes a program that a sequence of numbers decides.
pub(super) struct Writer<'n> {
    numbers: std::iter::Copied<std::slice::Iter<'n, u32>>,
    /// Whether branches may skip the rest of a segment.
    may_skip: bool,
    function: u32,
    loops: u32,
    /// Statements that the function may still have.
    left: u32,
    /// Labels around the code that is being written.
    open: u32,
}

const FUNCTIONS: u32 = 4;
const LOCALS: u32 = 4;
/// Locals that count the iterations of loops, which nothing else sets.
const COUNTERS: u32 = 12;

impl<'n> Writer<'n> {
    pub(super) fn new(numbers: &'n [u32], may_skip: bool) -> Self {
        Self { numbers: numbers.iter().copied(), may_skip, function: 0, loops: 0, left: 0, open: 0 }
    }

    fn next(&mut self, below: u32) -> u32 {
        self.numbers.next().unwrap_or(0) % below
    }

    fn expr(&mut self, depth: u32) -> String {
        match self.next(if depth == 0 { 3 } else { 7 }) {
            0 => format!("(local.get {})", self.next(LOCALS)),
            1 => format!("(i32.const {})", self.next(1000)),
            2 => format!("(i32.load (i32.const {}))", 4 * self.next(200)),
            3 if self.function + 1 < FUNCTIONS => {
                let callee = self.function + 1 + self.next(FUNCTIONS - self.function - 1);
                format!("(call $f{callee} {} {})", self.expr(depth - 1), self.expr(depth - 1))
            }
            4 => format!("(call $twice {})", self.expr(depth - 1)),
            5 => format!(
                "(if (result i32) {} (then {}) (else {}))",
                self.expr(depth - 1),
                self.expr(depth - 1),
                self.expr(depth - 1)
            ),
            _ => format!("(i32.add {} {})", self.expr(depth - 1), self.expr(depth - 1)),
        }
    }

    /// Statements within `labels` further labels.
    fn within(&mut self, labels: u32, depth: u32) -> String {
        self.open += labels;
        let text = (0..=self.next(3)).map(|_| self.statement(depth)).collect();
        self.open -= labels;
        text
    }

    fn statement(&mut self, depth: u32) -> String {
        let Some(left) = self.left.checked_sub(1) else { return String::new() };
        self.left = left;
        let Some(depth) = depth.checked_sub(1) else {
            return format!("(local.set {} {})", self.next(LOCALS), self.expr(1));
        };
        match self.next(12) {
            0 => format!("(i32.store (i32.const {}) {})", 4 * self.next(200), self.expr(2)),
            1 => format!("(if {} (then {}) (else {}))", self.expr(1), self.within(1, depth), self.within(1, depth)),
            2 => format!("(if {} (then {}))", self.expr(1), self.within(1, depth)),
            3 | 4 if self.loops < COUNTERS => {
                let counter = LOCALS + self.loops;
                self.loops += 1;
                let turns = 1 + self.next(5);
                format!(
                    "(local.set {counter} (i32.const {turns})) (loop {}
                     (br_if 0 (local.tee {counter} (i32.sub (local.get {counter}) (i32.const 1)))))",
                    self.within(1, depth)
                )
            }
            5 => format!(
                "(memory.fill (i32.const {}) (i32.const 3) (i32.and (i32.const 511) {}))",
                self.next(500),
                self.expr(0)
            ),
            6 => format!("(memory.copy (i32.const {}) (i32.const 8) (i32.const {}))", self.next(500), self.next(400)),
            7 => format!("(if {} (then (return {})))", self.expr(1), self.expr(1)),
            8 if self.may_skip => {
                format!("(block {} (br_if 0 {}) {})", self.within(1, depth), self.expr(1), self.within(1, depth))
            }
            9 if self.may_skip => format!(
                "(block (block (block (br_table 0 1 2 {})) {}) {})",
                self.expr(1),
                self.within(2, depth),
                self.within(1, depth)
            ),
            // Out of the function.
            10 if self.may_skip => {
                let out = self.open;
                format!("(drop (br_if {out} {} {}))", self.expr(1), self.expr(0))
            }
            11 => format!("(block {} (br 0) {})", self.within(1, depth), self.within(1, 0)),
            _ => format!("(local.set {} {})", self.next(LOCALS), self.expr(2)),
        }
    }

    pub(super) fn program(mut self) -> String {
        let mut text = "(module (import \"host\" \"twice\" (func $twice (param i32) (result i32)))
            (memory (export \"memory\") 1) (export \"run\" (func $run))\n"
            .to_owned();
        for function in 0..FUNCTIONS {
            (self.function, self.loops, self.left) = (function, 0, 25);
            let (name, params) = match function {
                0 => ("run".to_owned(), "(result i32) (local i32 i32)"),
                _ => (format!("f{function}"), "(param i32 i32) (result i32)"),
            };
            let locals = "i32 ".repeat((LOCALS + COUNTERS - 2) as usize);
            let (body, end) = (self.within(0, 4), self.expr(1));
            let _ = writeln!(text, "(func ${name} {params} (local {locals}) {body} {end})");
        }
        text.push(')');
        text
    }
}
