//! Components that consist of several components.

use wasmtime::component::{Component, Linker};
use wasmtime::{Store, Trap};

use super::{FuelChecks, is_composed, rewritten};
use crate::engine::Engine;

/// One component passes the other a list again and again, from a start function; wasmtime
/// copies each list, element by element.
const COPIES: &str = r#"(component
  (component $to
    (core module $m (memory (export "memory") 65)
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
      (func (export "f") (param i32 i32)))
    (core instance $i (instantiate $m))
    (func (export "f") (param "x" (list bool))
      (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
  (component $from
    (import "f" (func $f (param "x" (list bool))))
    (core module $memory (memory (export "memory") 65))
    (core instance $memory (instantiate $memory))
    (core func $f (canon lower (func $f) (memory (core memory $memory "memory"))))
    (core module $m (import "" "f" (func $f (param i32 i32))) (start $s)
      (func $s (local i32) (local.set 0 (i32.const 80))
        (loop (call $f (i32.const 0) (i32.const 0x400000))
          (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))
    (core instance (instantiate $m (with "" (instance (export "f" (func $f)))))))
  (instance $to (instantiate $to))
  (instance (instantiate $from (with "f" (func $to "f")))))"#;

#[test]
fn copies_between_components_use_fuel() {
    let bytes = wat::parse_str(COPIES).expect("a component");
    assert!(is_composed(&bytes));
    let engine = Engine::new().and_then(|engine| engine.for_composed()).expect("an engine");
    for checks in [FuelChecks::AtCalls, FuelChecks::AtLoops] {
        let code =
            Component::from_binary(&engine.inner, &rewritten(&bytes, checks).expect("written")).expect("compiled");
        let mut store = Store::new(&engine.inner, ());
        store.set_fuel(500_000_000).expect("fuel");
        let error = Linker::new(&engine.inner).instantiate(&mut store, &code).map(|_| ()).expect_err("out of fuel");
        assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::OutOfFuel), "{error:#}");
    }
}

#[test]
fn a_component_that_merely_contains_components_is_not_composed() {
    let texts = [
        "(component)",
        "(component (core module (func)))",
        // As tools write it: an inner component that exports functions under their names.
        "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
           (func $f (canon lift (core func $i \"f\")))
           (component $names (import \"f\" (func $f)) (export \"f\" (func $f)))
           (instance (export \"i\") (instantiate $names (with \"f\" (func $f)))))",
    ];
    for text in texts {
        assert!(!is_composed(&wat::parse_str(text).expect("a component")), "{text}");
    }
    for malformed in [&b""[..], b"\0asm", b"\0asm\x0d\0\x01\0\x04\xff", b"\0asm\x0d\0\x01\0\x04\x03abc"] {
        assert!(!is_composed(malformed));
    }
}
