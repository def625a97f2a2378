//! Compares the fuel that guests count with the fuel that wasmtime counts, and their results
//! with those without counting.

mod writer;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use wasmtime::{Config, Engine, Linker, Module, ResourceLimiter, Store, Val};

use super::super::op::{CALL, EMPTY, END, LOOP};
use super::counted;
use super::declared::{FAR, FuelChecks, LOST, SLICE, TABLE};
use writer::Writer;

/// The reports of a guest.
#[derive(Default)]
struct Reported {
    used: u64,
    times: u64,
    is_lost: bool,
    /// The fuel after which the guest is stopped.
    limit: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

impl ResourceLimiter for Reported {
    fn memory_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum != Some(TABLE) || desired == 0 {
            return Ok(true);
        }
        if desired == LOST as usize {
            self.is_lost = true;
            return Err(wasmtime::Error::new(Stopped));
        }
        self.used += desired as u64;
        self.times += 1;
        if self.used > self.limit { Err(wasmtime::Error::new(Stopped)) } else { Ok(false) }
    }
}

fn module(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn engine(counts: bool) -> Engine {
    let mut config = Config::new();
    config.consume_fuel(counts).wasm_branch_hinting(true).max_wasm_stack(1 << 19);
    Engine::new(&config).expect("an engine")
}

/// The result of a call as text, and the content of the memory after it.
type Outcome = (String, Vec<u8>);

fn call<T: 'static>(store: &mut Store<T>, module: &[u8], args: &[Val]) -> Outcome {
    let engine = store.engine().clone();
    let module = Module::new(&engine, module).unwrap_or_else(|error| panic!("{error:#}"));
    let mut linker = Linker::new(&engine);
    linker.func_wrap("host", "twice", |x: i32| x.wrapping_mul(2)).expect("linked");
    let instance = linker.instantiate(&mut *store, &module).expect("an instance");
    let run = instance.get_func(&mut *store, "run").expect("`run`");
    let mut results = vec![Val::I32(0); run.ty(&*store).results().len()];
    let text = match run.call(&mut *store, args, &mut results) {
        Ok(()) => format!("{results:?}"),
        Err(error) => error.root_cause().to_string(),
    };
    let memory = instance.get_memory(&mut *store, "memory");
    (text, memory.map_or_else(Vec::new, |memory| memory.data(&*store)[..4096].to_vec()))
}

/// The outcome and the fuel that wasmtime counts; `None` for a program that runs too long.
fn theirs(module: &[u8], args: &[Val]) -> Option<(Outcome, u64)> {
    const LIMIT: u64 = 3_000_000;
    let mut store = Store::new(&engine(true), ());
    store.set_fuel(LIMIT).expect("fuel");
    let outcome = call(&mut store, module, args);
    let used = LIMIT - store.get_fuel().expect("fuel");
    (used < LIMIT).then_some((outcome, used))
}

fn ours(module: &[u8], args: &[Val], checks: FuelChecks, limit: u64) -> (Outcome, Reported) {
    let rewritten = counted(module, checks).expect("a module");
    let mut store = Store::new(&engine(false), Reported { limit, ..Reported::default() });
    store.limiter(|reported| reported);
    let outcome = call(&mut store, &rewritten, args);
    (outcome, store.into_data())
}

const BOTH: [FuelChecks; 2] = [FuelChecks::AtCalls, FuelChecks::AtLoops];

/// Compares a program with and without counting: the outcome is the same, and so is the fuel that
/// wasmtime counts, or more where branches skip part of a segment.
fn compare(text: &str, args: &[Val], is_exact: bool) -> Result<(), String> {
    let module = module(text);
    let Some((outcome, cost)) = theirs(&module, args) else { return Ok(()) };
    // With these, wasmtime runs a function of its own to create an instance.
    let instantiation = if text.contains("(elem $e") || text.contains("(start") { 2 } else { 0 };
    for checks in BOTH {
        let (found, reported) = ours(&module, args, checks, u64::MAX);
        if found != outcome {
            return Err(format!("{checks:?}: {} and not {}\n{text}", found.0, outcome.0));
        }
        // A trap leaves unreported what was used since the last report.
        let ended = outcome.0.starts_with('[');
        if ended && (reported.used + instantiation < cost || (is_exact && reported.used > cost)) {
            return Err(format!("{checks:?}: {} for {cost}\n{text}", reported.used));
        }
    }
    Ok(())
}

#[test]
fn random_programs_have_the_same_outcome_and_cost_as_in_wasmtime() {
    let cases = std::env::var("MILLRACE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    let mut runner = TestRunner::new(Cases { cases, ..Cases::default() });
    let numbers = proptest::collection::vec(any::<u32>(), 20..400);
    let check = |numbers: Vec<u32>| {
        for may_skip in [false, true] {
            let text = Writer::new(&numbers, may_skip).program();
            compare(&text, &[], !may_skip).map_err(TestCaseError::fail)?;
        }
        Ok(())
    };
    if let Err(error) = runner.run(&numbers, check) {
        panic!("{error}");
    }
}

#[test]
fn programs_by_hand_have_the_same_outcome_and_cost_as_in_wasmtime() {
    let programs = [
        // No declarations beyond the needed ones.
        "(module (func (export \"run\")))",
        // Several results, through a branch to the function itself.
        "(module (func (export \"run\") (result i32 i64) i32.const 1 i64.const 2 br 0))",
        "(module (func (export \"run\") (result i32 i64) i32.const 1 i64.const 2 return))",
        // One function under two names, and an import that is exported.
        "(module (import \"host\" \"twice\" (func $t (param i32) (result i32))) (export \"t\" (func $t))
           (func (export \"run\") (export \"other\") (result i32) i32.const 4 call $t))",
        // A loop with params, and with results.
        "(module (func (export \"run\") (result i32) (local i32) i32.const 5
           (loop (param i32) (result i32) i32.const 1 i32.sub local.tee 0 local.get 0 br_if 0)))",
        "(module (func (export \"run\") (result i32) (local i32) (local.set 0 (i32.const 9))
           (loop (result i32) i32.const 3 (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))",
        // Unreachable code.
        "(module (func (export \"run\") (result i32) (block (br 0) (drop (i32.const 1)) (loop (br 0))) i32.const 2
           return i32.const 3 drop unreachable))",
        // Indirect calls, one of them of an import, and tail calls.
        "(module (import \"host\" \"twice\" (func $t (param i32) (result i32))) (table funcref (elem $t $g))
           (type $s (func (param i32) (result i32))) (func $g (type $s) local.get 0 i32.const 1 return_call $t)
           (func (export \"run\") (result i32) i32.const 4 (call_indirect (type $s) (i32.const 0))
             (call_indirect (type $s) (i32.const 1)) (return_call_indirect (type $s) (i32.const 1))))",
        // A reference to a function that only its export names, with and without elements.
        "(module (table $t 1 funcref) (type $s (func (result i32))) (func $f (export \"f\") (type $s) i32.const 3)
           (func (export \"run\") (result i32) (table.set $t (i32.const 0) (ref.func $f))
             (call_indirect $t (type $s) (i32.const 0))))",
        "(module (table $t 1 funcref) (type $s (func (result i32))) (func $f (export \"f\") (type $s) i32.const 3)
           (elem (i32.const 0) $g) (func $g (type $s) i32.const 4) (data \"\") (memory 1)
           (func (export \"run\") (result i32) (table.set $t (i32.const 0) (ref.func $f))
             (call_indirect $t (type $s) (i32.const 0)) (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0))))",
        // Bulk instructions, with lengths of both widths, constant and not.
        "(module (memory (export \"memory\") 1) (table $t 2000 funcref) (data $d \"abcdefgh\") (elem $e func 0)
           (func (export \"run\") (local i32) (local.set 0 (i32.const 1000))
             (memory.fill (i32.const 8) (i32.const 7) (local.get 0)) (memory.copy (i32.const 99) (i32.const 7) (local.get 0))
             (memory.fill (i32.const 0) (i32.const 1) (i32.const 4)) (memory.copy (i32.const 9) (i32.const 7) (i32.const 999))
             (memory.init $d (i32.const 3) (i32.const 0) (i32.const 8)) (table.init $e (i32.const 3) (i32.const 0) (i32.const 1))
             (table.fill (i32.const 1) (ref.null func) (local.get 0)) (drop (table.grow (ref.null func) (local.get 0)))))",
        "(module (memory $m (export \"memory\") i64 1) (func (export \"run\") (local i64) (local.set 0 (i64.const 1000))
             (memory.fill (i64.const 8) (i32.const 7) (local.get 0)) (memory.copy (i64.const 9) (i64.const 7) (local.get 0))))",
        // A start function.
        "(module (global $g (mut i32) (i32.const 0)) (start $s)
           (func $s (loop (global.set $g (i32.add (global.get $g) (i32.const 1))) (br_if 0 (i32.lt_u (global.get $g) (i32.const 50)))))
           (func (export \"run\") (result i32) global.get $g))",
        // A trap.
        "(module (func $f (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0)))
           (func (export \"run\") (result i32) (call $f (i32.const 1)) drop (call $f (i32.const 1))))",
    ];
    for text in programs {
        compare(text, &[], true).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A loop without calls, with as many iterations as the argument says.
const TURNS: &str = "(module (func (export \"run\") (param i64) (local i64)
  (loop (br_if 0 (i64.lt_u (local.tee 1 (i64.add (local.get 1) (i64.const 1))) (local.get 0))))))";

/// The cost of one iteration.
const TURN: u64 = 7;

#[test]
fn a_long_loop_reports_or_is_lost() {
    let module = module(TURNS);
    let run = |turns: u64, checks, limit| ours(&module, &[Val::I64(turns as i64)], checks, limit).1;
    let turns = 10 * SLICE as u64 / TURN;
    // A loop without calls runs on, and reports when it ends.
    let reported = run(turns, FuelChecks::AtCalls, u64::MAX);
    assert_eq!((reported.times, reported.is_lost), (1, false));
    let all = reported.used;
    assert!(all >= TURN * turns && all < TURN * turns + 10, "{all} for {turns}");
    // With checks everywhere it reports once in a slice.
    let reported = run(turns, FuelChecks::AtLoops, u64::MAX);
    assert_eq!(reported.used, all);
    assert!((10..=12).contains(&reported.times), "{}", reported.times);
    // And it is stopped soon after its limit.
    let reported = run(u64::MAX, FuelChecks::AtLoops, 1_000_000);
    assert!(reported.used > 1_000_000 && reported.used <= 1_000_000 + SLICE as u64 + TURN, "{}", reported.used);
    // Without them it is stopped, too, if its limit is exceeded when it is lost; else it is lost.
    let reported = run(u64::MAX, FuelChecks::AtCalls, 1_000_000);
    assert!(!reported.is_lost && reported.used >= FAR as u64, "{}", reported.used);
    let reported = run(u64::MAX, FuelChecks::AtCalls, u64::MAX);
    assert!(
        reported.is_lost && reported.used > FAR as u64 && reported.used < FAR as u64 + 2 * SLICE as u64,
        "{}",
        reported.used
    );
}

#[test]
fn code_with_calls_reports_in_between() {
    let programs = [
        // A loop with a call.
        "(module (func $f) (func (export \"run\") (loop (call $f) (br 0))))",
        // A tree of calls without a loop: 2^40 calls.
        &tree(40),
        // A function that calls itself, by calls and by a tail call.
        "(module (func $f (param i32) (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1)))
           (call $f (i32.sub (local.get 0) (i32.const 1)))))) (func (export \"run\") (call $f (i32.const 60))))",
        "(module (func $f (return_call $f)) (func (export \"run\") (call $f)))",
        // A large bulk instruction in each iteration, and a loop in a loop with a call.
        "(module (memory (export \"memory\") 16) (func (export \"run\") (local i32) (local.set 0 (i32.const 1000000))
           (loop (memory.fill (i32.const 0) (i32.const 0) (local.get 0)) (br 0))))",
        "(module (func $f) (func (export \"run\") (local i32) (loop (local.set 0 (i32.const 9)) (call $f)
           (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (br 0))))",
    ];
    for text in programs {
        for checks in BOTH {
            let (_, reported) = ours(&module(text), &[], checks, 10_000_000);
            assert!(reported.used > 10_000_000 && reported.used < 12_000_000, "{checks:?}: {} {text}", reported.used);
            assert!(reported.times > 1 && !reported.is_lost, "{checks:?}: {text}");
        }
    }
}

/// A function that does not check its count is called by one that does, and a long function
/// always checks it.
#[test]
fn no_sequence_of_calls_runs_long_without_a_report() {
    let long = "(drop (i32.const 1)) ".repeat(5_000);
    let many = "(call $f) ".repeat(60_000);
    let turns = "(local i32) (local.set 0 (i32.const 30000)) (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))";
    for body in [&long, "(drop (i32.const 1))", turns] {
        let text =
            format!("(module (func $f {body}) (func $g {many}) (func (export \"run\") (loop (call $g) (br 0))))");
        for checks in BOTH {
            let (_, reported) = ours(&module(&text), &[], checks, 1 << 24);
            // At most one pass through `$g`, plus what is used before it is lost.
            let most = (1 << 24) + (FAR as u64) + (1 << 24);
            assert!(reported.used > 1 << 24 && reported.used < most, "{checks:?}: {}", reported.used);
            assert!(checks == FuelChecks::AtCalls || !reported.is_lost);
        }
    }
}

/// Nested loops with a call in each: searching all open loops at each call would take forever.
#[test]
fn nested_loops_take_linear_time() {
    let deep = 300_000;
    let mut body = vec![0];
    (0..deep).for_each(|_| body.extend([LOOP, EMPTY, CALL, 0]));
    body.extend(vec![END; deep + 1]);
    let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".to_vec();
    let mut code = vec![1];
    super::function_body(&mut code, &body);
    super::section(&mut module, super::CODE, &code).expect("short");
    assert!(counted(&module, FuelChecks::AtCalls).is_ok());
}

fn tree(deep: usize) -> String {
    let functions: String = (1..deep).map(|n| format!("(func $f{n} (call $f{0}) (call $f{0}))", n - 1)).collect();
    format!("(module (func $f0) {functions} (func (export \"run\") (call $f{})))", deep - 1)
}

/// Start functions report as well: otherwise each instance could use a slice unreported.
#[test]
fn a_start_function_reports_its_fuel() {
    let text =
        "(module (func $s (local i32) (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1)))
        (i32.const 2000000))))) (start $s) (func (export \"run\")))";
    for checks in BOTH {
        let engine = engine(false);
        let module = Module::new(&engine, counted(&module(text), checks).expect("a module")).expect("compiled");
        let mut store = Store::new(&engine, Reported { limit: u64::MAX, ..Reported::default() });
        store.limiter(|reported| reported);
        Linker::new(&engine).instantiate(&mut store, &module).expect("an instance");
        let reported = store.into_data();
        assert!(reported.used >= 2_000_000 * TURN && !reported.is_lost, "{checks:?}: {}", reported.used);
    }
}

/// Instructions that take long because they call the host.
#[test]
fn loops_of_instructions_that_call_the_host_report_in_between() {
    for body in [
        "(drop (memory.grow (i32.const 0)))",
        "(drop (ref.func $f))",
        "(elem.drop $e)",
        "(drop (table.get (i32.const 0)))",
    ] {
        let text = format!(
            "(module (memory 1) (table 1 funcref) (func $f) (elem $e func $f)
             (func (export \"run\") (loop {body} (br 0))))"
        );
        let (_, reported) = ours(&module(&text), &[], FuelChecks::AtCalls, 1_000_000);
        assert!(reported.used > 1_000_000 && reported.used < 2_000_000, "{body}: {}", reported.used);
    }
}

#[test]
fn a_huge_length_does_not_overflow_the_count() {
    // Without a bound the count would wrap to above zero.
    for length in [-1i64, i64::MIN, i64::MAX, 1 << 40, 1 << 62] {
        let text = format!(
            "(module (memory (export \"memory\") i64 1) (func (export \"run\") (local i64) (local.set 0 (i64.const {length}))
             (memory.fill (i64.const 0) (i32.const 1) (local.get 0))))"
        );
        for checks in BOTH {
            let ((text, _), reported) = ours(&module(&text), &[], checks, 1 << 35);
            assert!(reported.used > 1 << 35 && text.contains("stopped"), "{length}: {} {text}", reported.used);
        }
    }
}

#[test]
fn growing_an_own_table_that_never_grows_reports_more_fuel() {
    let text = "(module (table 0 0 funcref) (func (export \"run\") (result i32) (table.grow (ref.null func) (i32.const 5000))))";
    let (outcome, reported) = ours(&module(text), &[], FuelChecks::AtCalls, u64::MAX);
    assert!(reported.used > 10_000 && !reported.is_lost, "{}", reported.used);
    assert!(outcome.0.contains("-1"), "{}", outcome.0);
}

#[test]
fn references_to_undeclared_items_are_refused() {
    let call = |body: &[u8]| {
        let mut module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x06\x06\x01\x7e\x01\x42\0\x0b".to_vec();
        super::section(&mut module, super::CODE, &[&[1, body.len() as u8 + 2, 0], body, &[0x0b]].concat())
            .expect("short");
        module
    };
    // In a component, as only components come from outside.
    let component = |module: &[u8]| {
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        super::section(&mut component, 1, module).expect("short");
        component
    };
    let rewritten = |body: &[u8]| crate::rewrite::rewritten(&component(&call(body)), FuelChecks::AtCalls);
    assert!(rewritten(&[0x42, 0, 0x24, 0]).is_ok());
    // The count, the function `tell`, the table.
    for body in [&[0x42, 0, 0x24, 1][..], &[0x42, 0, 0x10, 1, 0x1a], &[0xd0, 0x70, 0x41, 5, 0xfc, 0x0f, 0, 0x1a]] {
        assert!(counted(&call(body), FuelChecks::AtCalls).is_ok(), "possible without validation: {body:x?}");
        assert!(rewritten(body).is_err(), "{body:x?}");
    }
}

#[test]
fn corrupt_modules_do_not_panic() {
    let text = Writer::new(&[7, 1, 4, 9, 3, 8, 2, 6, 5, 1, 9, 2, 4], true).program();
    let module = module(&text);
    for at in 0..module.len() {
        for bits in [1u8, 0x40, 0xff] {
            let mut corrupt = module.clone();
            corrupt[at] ^= bits;
            for checks in BOTH {
                let _ = counted(&corrupt, checks);
            }
        }
        let _ = counted(&module[..at], FuelChecks::AtCalls);
    }
}
