//! Random programs: floats of all widths in arithmetic, masks, lanes, locals, memory and every
//! kind of branch.

use std::fmt::Write as _;

use super::{OUT, SIZE};

/// Writes a program that a sequence of numbers decides.
pub(super) struct Writer<'n> {
    numbers: std::iter::Copied<std::slice::Iter<'n, u32>>,
    out: usize,
    loops: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Ty {
    F32,
    F64,
    V128,
}

impl Ty {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::V128 => "v128",
        }
    }
}

const LOCALS: u32 = 4;
const MAX_LOOPS: usize = 8;

impl<'n> Writer<'n> {
    pub(super) fn new(numbers: &'n [u32]) -> Self {
        Self { numbers: numbers.iter().copied(), out: 0, loops: 0 }
    }

    fn next(&mut self, below: u32) -> u32 {
        self.numbers.next().unwrap_or(0) % below
    }

    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of[self.next(of.len() as u32) as usize]
    }

    fn ty(&mut self) -> Ty {
        [Ty::F32, Ty::F64, Ty::V128, Ty::F64][self.next(4) as usize]
    }

    fn local(&mut self, ty: Ty) -> String {
        format!("${}{}", ty.name(), self.next(LOCALS))
    }

    fn leaf(&mut self, ty: Ty) -> String {
        let offset = 8 * self.next(14);
        match (self.next(5), ty) {
            (0, _) => format!("({}.load (i32.const {offset}))", ty.name()),
            (1, Ty::F32) => format!("(f32.const {})", self.pick(&["0", "1.5", "-0", "inf", "nan:0x200001"])),
            (1, Ty::F64) => format!("(f64.const {})", self.pick(&["0", "1.5", "-0", "inf", "nan:0x8000000000001"])),
            (1, Ty::V128) => {
                let number = self.pick(&["f64x2 0 1", "f64x2 nan:0x8000000000001 2", "f32x4 0 inf nan:0x200001 -1"]);
                format!("(v128.const {number})")
            }
            (2, _) => {
                let (local, value) = (self.local(ty), self.leaf_of_memory(ty));
                format!("(local.tee {local} {value})")
            }
            _ => format!("(local.get {})", self.local(ty)),
        }
    }

    fn leaf_of_memory(&mut self, ty: Ty) -> String {
        format!("({}.load (i32.const {}))", ty.name(), 8 * self.next(14))
    }

    fn condition(&mut self, depth: u32) -> String {
        let ty = if self.next(2) == 0 { Ty::F32 } else { Ty::F64 };
        let (a, b) = (self.expr(ty, depth), self.expr(ty, depth));
        format!("({}.{} {a} {b})", ty.name(), self.pick(&["lt", "eq", "ne", "ge"]))
    }

    fn mask(&mut self, depth: u32) -> String {
        match self.next(7) {
            0 if depth > 0 => format!("(v128.not {})", self.mask(depth - 1)),
            1 => format!("(i64x2.shr_s {} (i32.const 63))", self.expr(Ty::V128, depth)),
            2 => format!("(i32x4.shr_s {} (i32.const 31))", self.expr(Ty::V128, depth)),
            3 => format!("(local.get {})", self.local(Ty::V128)),
            _ => {
                let op =
                    self.pick(&["f64x2.lt", "f64x2.ne", "f32x4.ge", "f32x4.eq", "i64x2.gt_s", "i32x4.ne", "i8x16.eq"]);
                format!("({op} {} {})", self.expr(Ty::V128, depth), self.expr(Ty::V128, depth))
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "one match over all expressions")]
    fn expr(&mut self, ty: Ty, depth: u32) -> String {
        let Some(depth) = depth.checked_sub(1) else { return self.leaf(ty) };
        match (ty, self.next(12)) {
            (_, 0) => self.leaf(ty),
            (_, 1) => {
                let (a, b, c) = (self.expr(ty, depth), self.expr(ty, depth), self.condition(0));
                format!("(select {}{a} {b} {c})", if ty == Ty::V128 { "(result v128) " } else { "" })
            }
            (_, 2) => {
                let (c, a, b) = (self.condition(0), self.expr(ty, depth), self.expr(ty, depth));
                format!("(if (result {}) {c} (then {a}) (else {b}))", ty.name())
            }
            (_, 3) => {
                // A value stays on the stack below a block.
                let (a, s, b) = (self.expr(ty, depth), self.statement(depth), self.expr(ty, depth));
                let op = if ty == Ty::V128 { "f64x2.add".to_owned() } else { format!("{}.mul", ty.name()) };
                format!("({op} {a} (block (result {}) {s} {b}))", ty.name())
            }
            (Ty::F32, 4) => format!("(f32.demote_f64 {})", self.expr(Ty::F64, depth)),
            (Ty::F64, 4) => format!("(f64.promote_f32 {})", self.expr(Ty::F32, depth)),
            (Ty::F32, 5) => format!("(f32x4.extract_lane {} {})", self.next(4), self.expr(Ty::V128, depth)),
            (Ty::F64, 5) => format!("(f64x2.extract_lane {} {})", self.next(2), self.expr(Ty::V128, depth)),
            (Ty::F32, 6) => format!("(f32.reinterpret_i32 (i32.trunc_sat_f64_s {}))", self.expr(Ty::F64, depth)),
            (Ty::F64, 6) => format!("(f64.reinterpret_i64 (i64.reinterpret_f64 {}))", self.expr(Ty::F64, depth)),
            (Ty::F32 | Ty::F64, 7 | 8) => {
                let op = self.pick(&["abs", "neg", "sqrt", "ceil", "nearest"]);
                format!("({}.{op} {})", ty.name(), self.expr(ty, depth))
            }
            (Ty::F32 | Ty::F64, 9) => {
                format!("({}.copysign {} {})", ty.name(), self.expr(ty, depth), self.expr(ty, depth))
            }
            (Ty::F32 | Ty::F64, _) => {
                let op = self.pick(&["add", "sub", "mul", "div", "min", "max"]);
                format!("({}.{op} {} {})", ty.name(), self.expr(ty, depth), self.expr(ty, depth))
            }
            (Ty::V128, 4) => {
                let (a, b, m) = (self.expr(ty, depth), self.expr(ty, depth), self.mask(depth));
                format!("(v128.bitselect {a} {b} {m})")
            }
            (Ty::V128, 5) => {
                let (a, m) = (self.expr(ty, depth), self.mask(depth));
                match self.next(4) {
                    0 => format!("(v128.and {a} {m})"),
                    1 => format!("(v128.and {m} {a})"),
                    2 => format!("(v128.andnot {a} {m})"),
                    _ => format!("(v128.xor {a} {m})"),
                }
            }
            (Ty::V128, 6) => {
                let lanes = self.pick(&[
                    "8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23",
                    "4 5 6 7 20 21 22 23 0 1 2 3 28 29 30 31",
                    "4 5 6 7 0 1 2 3 8 9 10 11 24 25 26 27",
                    "1 0 3 2 5 4 7 6 16 17 18 19 20 21 22 24",
                ]);
                format!("(i8x16.shuffle {lanes} {} {})", self.expr(ty, depth), self.expr(ty, depth))
            }
            (Ty::V128, 7) => match self.next(6) {
                0 => format!("(f64x2.splat {})", self.expr(Ty::F64, depth)),
                1 => format!("(f32x4.splat {})", self.expr(Ty::F32, depth)),
                2 => format!(
                    "(f64x2.replace_lane {} {} {})",
                    self.next(2),
                    self.expr(ty, depth),
                    self.expr(Ty::F64, depth)
                ),
                3 => format!(
                    "(f32x4.replace_lane {} {} {})",
                    self.next(4),
                    self.expr(ty, depth),
                    self.expr(Ty::F32, depth)
                ),
                4 => format!("(f64x2.promote_low_f32x4 {})", self.expr(ty, depth)),
                _ => format!("(f32x4.demote_f64x2_zero {})", self.expr(ty, depth)),
            },
            (Ty::V128, 8) => {
                let op = self.pick(&[
                    "f64x2.neg",
                    "f64x2.abs",
                    "f64x2.sqrt",
                    "f32x4.neg",
                    "f32x4.abs",
                    "f32x4.floor",
                    "f64x2.convert_low_i32x4_s",
                ]);
                format!("({op} {})", self.expr(ty, depth))
            }
            (Ty::V128, 9) => {
                let op = self.pick(&["f64x2.relaxed_madd", "f64x2.relaxed_nmadd", "f32x4.relaxed_madd"]);
                format!("({op} {} {} {})", self.expr(ty, depth), self.expr(ty, depth), self.expr(ty, depth))
            }
            (Ty::V128, _) => {
                let op = self.pick(&[
                    "f64x2.add",
                    "f64x2.mul",
                    "f64x2.div",
                    "f64x2.sub",
                    "f64x2.min",
                    "f64x2.pmax",
                    "f64x2.pmin",
                    "f32x4.add",
                    "f32x4.div",
                    "f32x4.max",
                    "f32x4.pmax",
                    "i64x2.add",
                    "i32x4.sub",
                ]);
                format!("({op} {} {})", self.expr(ty, depth), self.expr(ty, depth))
            }
        }
    }

    fn statement(&mut self, depth: u32) -> String {
        let Some(depth) = depth.checked_sub(1) else { return String::new() };
        match self.next(9) {
            0 | 1 => {
                let ty = self.ty();
                self.out += 16;
                format!("({}.store (i32.const {}) {})", ty.name(), OUT + self.out % (SIZE - OUT - 16), self.expr(ty, 3))
            }
            2 => format!(
                "(if {} (then {}) (else {}))",
                self.condition(1),
                self.statements(depth),
                self.statements(depth)
            ),
            3 if self.loops < MAX_LOOPS => {
                self.loops += 1;
                let count = format!("$i{}", self.loops);
                format!(
                    "(local.set {count} (i32.const 3)) (loop $l{count} {} (local.set {count} (i32.sub (local.get {count}) (i32.const 1))) \
                     (br_if $l{count} (local.get {count})) {})",
                    self.statements(depth),
                    self.statements(depth)
                )
            }
            4 => {
                format!("(block {} (br_if 0 {}) {})", self.statements(depth), self.condition(1), self.statements(depth))
            }
            5 => format!(
                "(block (block (block (br_table 0 1 2 (i32.trunc_sat_f64_u {})) {}) {}) {})",
                self.expr(Ty::F64, 1),
                self.statement(depth),
                self.statements(depth),
                self.statement(depth)
            ),
            6 => {
                let ty = self.ty();
                format!("(global.set $g{} {})", ty.name(), self.expr(ty, 2))
            }
            _ => {
                let ty = self.ty();
                format!("(local.set {} {})", self.local(ty), self.expr(ty, 3))
            }
        }
    }

    fn statements(&mut self, depth: u32) -> String {
        (0..1 + self.next(3)).map(|_| self.statement(depth)).collect::<Vec<_>>().join("\n")
    }

    pub(super) fn program(&mut self) -> String {
        let mut body = String::new();
        for _ in 0..6 {
            body += &self.statement(4);
            body.push('\n');
        }
        let mut text = String::from("(module (memory (export \"memory\") 1)\n");
        let mut ends = String::new();
        for (at, ty) in [Ty::F32, Ty::F64, Ty::V128].into_iter().enumerate() {
            let zero =
                if ty == Ty::V128 { "v128.const i64x2 0 0".to_owned() } else { format!("{}.const 0", ty.name()) };
            let _ = writeln!(text, "(global $g{0} (mut {0}) ({zero}))", ty.name());
            // The final values of locals are observed, too.
            for local in 0..LOCALS {
                let offset = SIZE - 16 * (1 + at * LOCALS as usize + local as usize);
                let _ = writeln!(ends, "({0}.store (i32.const {offset}) (local.get ${0}{local}))", ty.name());
            }
            let _ = writeln!(ends, "({0}.store (i32.const {1}) (global.get $g{0}))", ty.name(), SIZE - 16 * (14 + at));
        }
        let locals: String =
            (0..LOCALS).map(|n| format!("(local $f32{n} f32) (local $f64{n} f64) (local $v128{n} v128)")).collect();
        let counts: String = (1..=MAX_LOOPS).map(|n| format!("(local $i{n} i32)")).collect();
        let _ = write!(text, "(func (export \"run\") {locals} {counts}\n{body}\n{ends}))");
        text
    }
}
