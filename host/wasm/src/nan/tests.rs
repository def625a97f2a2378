//! The same bits as with the compiler's own way, for anything that can be seen.
//!
//! Programs are written at random and run twice: as the compiler makes NaN one form behind
//! every operation, and as it is done here. What they leave in memory must be the same,
//! byte by byte. The NaN that x86 makes has a minus, and that of 0 / 0 here has none, so
//! that one that was forgotten shows.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use wasmtime::{Config, Engine, Instance, Module, Store};

/// Where the numbers lie that a program begins with, and where it writes.
const INPUTS: usize = 0;
const OUT: usize = 4096;
const SIZE: usize = 8192;

/// Numbers of which arithmetic makes NaN, and NaN of all kinds.
const NUMBERS: [u64; 16] = [
    0x7ff8_0000_0000_0000, // as arithmetic makes it here
    0xfff8_0000_0000_0000, // as x86 does
    0x7ff8_dead_beef_0001, // with more in it
    0xfff0_0000_0000_0001, // signalling
    0x7ff4_0000_7fa0_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x0000_0000_0000_0000,
    0x8000_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0xbfe5_5555_5555_5555,
    0x7fef_ffff_ffff_ffff,
    0x0000_0000_0000_0001,
    0x7fc0_1234_ffc0_0001, // two narrow NaNs
    0xff80_0000_7f80_0000,
    0x4049_0fdb_c2c8_0000,
];

fn engine(compilers_way: bool) -> Engine {
    let mut config = Config::new();
    config.cranelift_nan_canonicalization(compilers_way).relaxed_simd_deterministic(true).consume_fuel(true);
    Engine::new(&config).expect("an engine")
}

/// What a program leaves in memory, and whether it came to its end.
fn left(engine: &Engine, module: &[u8]) -> Result<(Vec<u8>, bool), String> {
    let module = Module::new(engine, module).map_err(|error| format!("{error:#}"))?;
    let mut store = Store::new(engine, ());
    store.set_fuel(10_000_000).map_err(|error| error.to_string())?;
    let instance = Instance::new(&mut store, &module, &[]).map_err(|error| error.to_string())?;
    let memory = instance.get_memory(&mut store, "memory").ok_or("no memory")?;
    for (place, number) in NUMBERS.iter().enumerate() {
        memory.data_mut(&mut store)[INPUTS + 8 * place..][..8].copy_from_slice(&number.to_le_bytes());
    }
    let run = instance.get_typed_func::<(), ()>(&mut store, "run").map_err(|error| error.to_string())?;
    let ended = run.call(&mut store, ()).is_ok();
    Ok((memory.data(&store)[..SIZE].to_vec(), ended))
}

struct Both {
    theirs: Engine,
    ours: Engine,
}

impl Both {
    fn new() -> Self {
        Self { theirs: engine(true), ours: engine(false) }
    }

    /// Runs a program in both ways.
    fn agree(&self, text: &str) -> Result<(), String> {
        let module = wat::parse_str(text).map_err(|error| format!("{error}\n{text}"))?;
        let rewritten = super::in_one_form(&module).map_err(|_| format!("not rewritten:\n{text}"))?;
        let theirs = left(&self.theirs, &module)?;
        let ours = left(&self.ours, &rewritten).map_err(|error| format!("{error}\n{text}"))?;
        if ours == theirs {
            return Ok(());
        }
        let place = ours.0.iter().zip(&theirs.0).position(|(a, b)| a != b).unwrap_or(SIZE) & !7;
        let bytes = |left: &[u8]| left.get(place..place + 8).map(<[u8]>::to_vec);
        Err(format!("at {place}: {:02x?}, and {:02x?} theirs\n{text}", bytes(&ours.0), bytes(&theirs.0)))
    }
}

/// Instructions with NaN in one form, of all that a program has.
fn forms(text: &str) -> usize {
    let module = wat::parse_str(text).expect("a module");
    let rewritten = super::in_one_form(&module).expect("a module");
    // `bitselect`, which none of the programs that ask has by itself.
    let count = |bytes: &[u8]| bytes.windows(2).filter(|pair| *pair == [0xfd, 0x52]).count();
    count(&rewritten) - count(&module)
}

/// Writes a program, by a row of numbers.
struct Writer<'n> {
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
const MOST_LOOPS: usize = 8;

impl Writer<'_> {
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
        let place = 8 * self.next(14);
        match (self.next(5), ty) {
            (0, _) => format!("({}.load (i32.const {place}))", ty.name()),
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
                // What lies below a block stays there.
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
            3 if self.loops < MOST_LOOPS => {
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

    fn program(&mut self) -> String {
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
            // What locals hold in the end is seen, too.
            for local in 0..LOCALS {
                let place = SIZE - 16 * (1 + at * LOCALS as usize + local as usize);
                let _ = writeln!(ends, "({0}.store (i32.const {place}) (local.get ${0}{local}))", ty.name());
            }
            let _ = writeln!(ends, "({0}.store (i32.const {1}) (global.get $g{0}))", ty.name(), SIZE - 16 * (14 + at));
        }
        let locals: String =
            (0..LOCALS).map(|n| format!("(local $f32{n} f32) (local $f64{n} f64) (local $v128{n} v128)")).collect();
        let counts: String = (1..=MOST_LOOPS).map(|n| format!("(local $i{n} i32)")).collect();
        let _ = write!(text, "(func (export \"run\") {locals} {counts}\n{body}\n{ends}))");
        text
    }
}

#[test]
fn whatever_can_be_seen_is_as_with_the_compilers_way() {
    let both = Both::new();
    let cases = std::env::var("MILLRACE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let mut runner = TestRunner::new(Cases { cases, ..Cases::default() });
    let numbers = proptest::collection::vec(any::<u32>(), 50..600);
    let agree = |numbers: Vec<u32>| {
        let text = Writer { numbers: numbers.iter().copied(), out: 0, loops: 0 }.program();
        both.agree(&text).map_err(TestCaseError::fail)
    };
    if let Err(error) = runner.run(&numbers, agree) {
        panic!("{error}");
    }
}

fn function(body: &str) -> String {
    format!(
        "(module (memory (export \"memory\") 1) (func $id (param f64) (result f64) local.get 0)
         (func $kept (param f64 i32) (result f64)
           (loop $l (if (local.get 1) (then (local.set 0 (f64.mul (local.get 0) (f64.const 2))) (local.set 1 (i32.const 0)) (br $l))))
           (local.get 0))
         (func (export \"run\") (local $x f64) (local $y f64) (local $v v128) (local $i i32)
         (local.set $x (f64.load (i32.const 56))) {body}))"
    )
}

/// What costs nothing, what costs once, and that all of it is right.
#[test]
fn nothing_is_done_where_nobody_can_tell() {
    let both = Both::new();
    let chain = "(f64.div (f64.add (f64.mul (local.get $x) (local.get $x)) (local.get $x)) (f64.sub (local.get $x) (local.get $x)))";
    let summed = "(local.set $i (i32.const 9)) (loop $l (local.set $y (f64.add (local.get $y) (f64.div (local.get $x) (local.get $x))))
        (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";
    for (body, times) in [
        (format!("(drop {chain})"), 0),
        (format!("(i32.store (i32.const {OUT}) (f64.lt {chain} (local.get $x)))"), 0),
        (format!("(f64.store (i32.const {OUT}) {chain})"), 1),
        (format!("(f64.store (i32.const {OUT}) (f64.abs {chain}))"), 1),
        (format!("(f64.store (i32.const {OUT}) (f64.neg {chain}))"), 1),
        (format!("(f64.store (i32.const {OUT}) (call $id {chain}))"), 1),
        (format!("(local.set $y {chain}) (f64.store (i32.const {OUT}) (local.get $y)) (f64.store (i32.const {OUT}) (local.get $y))"), 1),
        // Nobody looks while it is added up: once behind the loop.
        (format!("{summed} (f64.store (i32.const {OUT}) (local.get $y))"), 1),
        (summed.to_owned(), 0),
        // A lane of a vector of which a mask picks lanes.
        (
            format!(
                "(local.set $v (f64x2.div (f64x2.splat (local.get $x)) (f64x2.splat (local.get $x))))
                 (v128.store (i32.const {OUT}) (v128.andnot (f64x2.add (local.get $v) (local.get $v)) (f64x2.lt (local.get $v) (local.get $v))))"
            ),
            1,
        ),
    ] {
        let text = function(&body);
        both.agree(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(forms(&text) - forms(&function("")), times, "{body}");
    }
}

/// Functions that do more than is followed have it behind every operation.
#[test]
fn what_is_not_followed_is_right_all_the_same() {
    let both = Both::new();
    let text = "(module (memory (export \"memory\") 1) (func $f (param f64) (result f64) (f64.sub (f64.div (local.get 0) (local.get 0)) (local.get 0)))
        (func $t (param f64) (result f64) (return_call $f (f64.add (f64.div (local.get 0) (local.get 0)) (local.get 0))))
        (func (export \"run\") (f64.store (i32.const 4096) (call $t (f64.load (i32.const 56))))))";
    both.agree(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(forms(text), 3);
}

/// So have those that are too large, in which finding out would take longer than it saves.
#[test]
fn what_is_too_large_is_right_all_the_same() {
    let both = Both::new();
    let (count, arms) = (1500, 1500);
    let locals = "(local f64)".repeat(count);
    let quotients: String =
        (4..4 + count).map(|n| format!("local.get $x local.get $x f64.div local.set {n} ")).collect();
    let branches = "block local.get $i br_if 0 end ".repeat(arms);
    let sums: String = (4..4 + count).map(|n| format!("local.get {n} f64.add ")).collect();
    let nested = format!("{} {}", "block ".repeat(5000), "end ".repeat(5000));
    let text = format!(
        "(module (memory (export \"memory\") 1) (func (export \"run\") (local $x f64) (local $y f64) (local $z f64) (local $i i32) {locals}
         {quotients} {nested} {branches} i32.const {OUT} f64.const 1 {sums} f64.store))"
    );
    both.agree(&text).unwrap_or_else(|error| panic!("{}", &error[..200]));
    assert_eq!(forms(&text), 2 * count);
}

/// A payload that nobody computed goes through a variable that otherwise holds results.
#[test]
fn what_was_never_computed_keeps_its_bits() {
    let both = Both::new();
    for input in [16, 24, 32, 56] {
        let body = format!(
            "(local.set $y (f64.load (i32.const {input})))
             (local.set $i (i32.const 3))
             (loop $l
               (if (f64.gt (local.get $x) (f64.const 1)) (then (local.set $y (f64.div (local.get $y) (local.get $x)))))
               (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
             (f64.store (i32.const {OUT}) (local.get $y))"
        );
        both.agree(&function(&body)).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// For each rule a program that shows when it is broken: a NaN in one form is positive, one
/// that was just made is not.
#[test]
fn each_rule_is_needed() {
    let both = Both::new();
    // 0 / 0, in all lanes.
    let made = "(f64x2.div (f64x2.splat (local.get $x)) (f64x2.splat (local.get $x)))";
    let sign = "(v128.const i64x2 0x8000000000000000 0x8000000000000000)";
    let one = "(f64x2.splat (f64.const 1))";
    let store = |value: &str| format!("(v128.store (i32.const {OUT}) {value})");
    let nan = "(v128.const i64x2 0x7ff8dead00000000 0xfff8000000000001)";
    for body in [
        // Lanes that a shuffle tears apart.
        store(&format!("(f64x2.add {one} (i8x16.shuffle 0 1 2 3 4 5 7 6 8 9 10 11 12 13 15 14 {made} {made}))")),
        store(&format!("(f64x2.add {one} (i8x16.shuffle 4 5 6 7 0 1 2 3 12 13 14 15 8 9 10 11 {made} {made}))")),
        // Bits that are no mask of lanes, as one, and the other way round.
        store(&format!("(f64x2.div {one} (v128.bitselect {made} (v128.const i64x2 0 0) {sign}))")),
        store(&format!("(f64x2.div {one} (v128.and {made} {sign}))")),
        store(&format!("(f64x2.div {one} (v128.and {sign} {made}))")),
        store(&format!("(f64x2.div {one} (v128.xor {made} (v128.const i64x2 0x7ff8000000000000 0)))")),
        store(&format!("(v128.bitselect {one} (f64x2.neg {one}) {made})")),
        store(&format!(
            "(f64x2.div {one} (v128.bitselect {made} (v128.const i64x2 0 0) (i64x2.shr_s {sign} (i32.const 1))))"
        )),
        // Narrow masks of wide lanes.
        store(&format!("(f64x2.div {one} (v128.and {made} (i32x4.shr_s (v128.const i32x4 0 1 0 -1) (i32.const 31))))")),
        store(&format!(
            "(f64x2.div {one} (v128.and {made} (f32x4.eq (v128.const f32x4 0 nan 0 1) (v128.const f32x4 1 1 1 1))))"
        )),
        // Lanes of another width.
        store(&format!("(f32x4.div (f32x4.splat (f32.const 1)) (f32x4.pmin {made} {made}))")),
        store(&format!("(f32x4.splat (f32x4.extract_lane 1 {made}))")),
        store(&format!("(f64x2.add {one} (f32x4.neg {made}))")),
        // What is seen in the next turn of a loop.
        format!(
            "(local.set $i (i32.const 2)) (loop $l {} (local.set $v {made}) (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))",
            store("(local.get $v)")
        ),
        // What a branch takes along, and what is behind it.
        format!(
            "(local.set $v {made}) (block (br_if 0 (i32.const 1)) (local.set $v {one})) {}",
            store("(local.get $v)")
        ),
        format!(
            "(local.set $v {made}) (block (br_if 0 (i32.const 0)) (local.set $v {one})) {}",
            store("(local.get $v)")
        ),
        format!("(local.set $v {one}) (if (i32.const 1) (then (local.set $v {made}))) {}", store("(local.get $v)")),
        format!(
            "(local.set $v {one}) (block (block (br_table 0 1 (i32.const 1))) (local.set $v {one}) (br 0)) {}",
            store(made)
        ),
        // What is below a block on the stack.
        format!("(i32.const {OUT}) {made} (block (local.set $v {one})) v128.store"),
        // A payload that a loop may have replaced, from a constant, a param or memory.
        format!(
            "(local.set $v {nan}) (loop $l (if (local.get $i) (then (local.set $v (f64x2.add (local.get $v) {one}))))) {}",
            store("(local.get $v)")
        ),
        format!("(f64.store (i32.const {OUT}) (call $kept (f64.load (i32.const 16)) (i32.const 0)))"),
        format!("(f64.store (i32.const {OUT}) (call $kept (f64.load (i32.const 16)) (i32.const 1)))"),
        format!("(f64.store (i32.const {OUT}) (f64.copysign (f64.const 1) (f64.div (local.get $x) (local.get $x))))"),
        format!("(i64.store (i32.const {OUT}) (i64.reinterpret_f64 (f64.div (local.get $x) (local.get $x))))"),
        format!("(f32.store (i32.const {OUT}) (f32.demote_f64 (f64.load (i32.const 16))))"),
        // The sign of what a loop has made, behind it.
        format!(
            "(local.set $i (i32.const 2)) (loop $l (local.set $v (f64x2.neg {made})) (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1))))) {}",
            store("(local.get $v)")
        ),
    ] {
        both.agree(&function(&body)).unwrap_or_else(|error| panic!("{error}"));
    }
}

proptest! {
    /// Bytes that are nothing much, or nearly a module.
    #[test]
    fn any_bytes_are_rewritten_or_refused(bytes: Vec<u8>, harm in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..8)) {
        let _ = super::in_one_form(&bytes);
        let text = Writer { numbers: [7, 3, 9, 1, 4, 2, 8].repeat(40).iter().copied(), out: 0, loops: 0 }.program();
        let mut module = wat::parse_str(text).expect("a module");
        let size = module.len();
        for (place, byte) in harm {
            module[usize::from(place) % size] = byte;
        }
        let _ = super::in_one_form(&module);
    }
}
