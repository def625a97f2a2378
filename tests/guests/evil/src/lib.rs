//! A guest that attacks as its params say, past the SDK and directly against the world.
//! `tests/evil.rs` has the expected result of each attack.

#![cfg(target_arch = "wasm32")]

use millrace_sdk::guest::bindings;
use millrace_sdk::guest::bindings::exports::millrace::step::step::Guest;
use millrace_sdk::guest::bindings::millrace::step::host::{self, Task};
use millrace_sdk::guest::bindings::millrace::step::types as wit;

struct Evil;

bindings::export!(Evil with_types_in bindings);

fn field(name: &str, data_type: wit::DataType) -> wit::Field {
    wit::Field { name: name.to_owned(), data_type, nullable: false }
}

fn attack(params: &str) -> String {
    let params: serde_json::Value = serde_json::from_str(params).unwrap_or_default();
    params["attack"].as_str().unwrap_or_default().to_owned()
}

fn fixed(len: u64, values: &[u8]) -> host::NewColumn<'_> {
    host::NewColumn { len, null_count: 0, validity: None, offsets: None, values }
}

fn text<'a>(offsets: &'a [u8], values: &'a [u8]) -> host::NewColumn<'a> {
    host::NewColumn { len: 3, null_count: 0, validity: None, offsets: Some(offsets), values }
}

fn offsets(offsets: [i32; 4]) -> Vec<u8> {
    offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect()
}

/// A value that the optimiser must not see through.
fn opaque<T>(value: T) -> T {
    std::hint::black_box(value)
}

#[allow(unconditional_recursion, reason = "that is the attack")]
fn recurse(depth: u64) -> u64 {
    let frame = opaque([depth; 64]);
    recurse(depth + 1) + frame[(depth % 64) as usize]
}

impl Guest for Evil {
    fn describe() -> wit::Manifest {
        let port = |name: &str, kind, mapped: bool| wit::InputPort {
            name: name.to_owned(),
            kind,
            doc: String::new(),
            optional: !mapped,
            many: false,
            mapped,
        };
        let output = |name: &str, kind| wit::OutputPort { name: name.to_owned(), kind, doc: String::new() };
        wit::Manifest {
            name: "evil".to_owned(),
            version: "0.1.0".to_owned(),
            doc: String::new(),
            mode: wit::Mode::Map,
            inputs: vec![port("input", wit::PortKind::Table, true), port("blob", wit::PortKind::Blob, false)],
            outputs: vec![output("output", wit::PortKind::Table)],
            params_schema: "{}".to_owned(),
            limits: wit::Limits { memory_bytes: None, fuel: None, time_ms: None },
        }
    }

    fn plan(params: String, inputs: Vec<wit::PortSchema>) -> Result<wit::StepPlan, Vec<wit::Problem>> {
        let attack = attack(&params);
        let source = |column: &str| Some(wit::ColumnSource { port: "input".to_owned(), column: column.to_owned() });
        let mut fields = vec![
            wit::OutputField { field: field("n", wit::DataType::Int32), source: None },
            wit::OutputField { field: field("t", wit::DataType::Utf8), source: None },
        ];
        let mut columns = vec!["x".to_owned()];
        match attack.as_str() {
            "plan panics" => panic!("in plan"),
            "plan loops" => loop {
                opaque(());
            },
            // Some 200 million of fuel in a loop without calls.
            "plan takes long" => {
                let last =
                    (0..opaque(30_000_000u64)).fold(opaque(1u64), |x, i| (x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                columns.extend((last == 0).then(|| "never".to_owned()));
            }
            "plan reads what is not there" => columns.push("zzz".to_owned()),
            "plan passes what is not there" => {
                fields.push(wit::OutputField { field: field("q", wit::DataType::Utf8), source: source("zzz") });
            }
            "plan changes a type" => {
                fields.push(wit::OutputField { field: field("x", wit::DataType::Utf8), source: source("x") });
            }
            "plan repeats a column" => fields.push(fields[0].clone()),
            "plan forgets an output" => {
                return Ok(wit::StepPlan { mode: None, reads: Vec::new(), outputs: Vec::new() });
            }
            "take beyond" | "mask too short" | "pass through from nowhere" => {
                let schema = inputs[0].schema.as_ref().expect("a table");
                let mut field = schema[0].clone();
                field.name = "x".to_owned();
                fields = vec![wit::OutputField { field, source: source("x") }];
            }
            _ => {}
        }
        Ok(wit::StepPlan {
            mode: (attack == "plan works in rounds").then_some(wit::Mode::Rounds),
            reads: vec![wit::PortReads { port: "input".to_owned(), columns }],
            outputs: vec![wit::OutputSchema { port: "output".to_owned(), fields: Some(fields) }],
        })
    }

    fn run(task: &Task) -> Result<(), wit::Failure> {
        std::panic::set_hook(Box::new(|info| host::panicked(&info.to_string())));
        let attack = attack(&task.params());
        let begin = || task.begin("output", host::PartRows::SameRows("input"));
        let good_n = || task.column("n", fixed(3, &[0; 12]));
        let good_t = || task.column("t", text(&offsets([0, 1, 2, 3]), b"abc"));
        let emit_n = |data: host::NewColumn<'_>| {
            begin();
            task.column("n", data);
        };
        let emit_t = |data: host::NewColumn<'_>| {
            begin();
            task.column("t", data);
        };
        match attack.as_str() {
            "nothing" => {}
            "fails" => {
                return Err(wit::Failure { message: "no".to_owned(), column: Some("x".to_owned()), row: Some(2) });
            }
            "traps" => std::process::abort(),
            "panics" => panic!("at the disco"),
            "loops" => loop {
                opaque(());
            },
            // Two billion of fuel in a loop without calls, and then success.
            "takes long" | "takes longer" => {
                let turns = if attack == "takes long" { 250_000_000u64 } else { 1_500_000_000 };
                let last = (0..opaque(turns)).fold(opaque(1u64), |x, i| (x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                task.log(wit::Level::Info, &format!("came to {last}"));
                begin();
                good_n();
                good_t();
                task.end();
            }
            "recurses" => {
                opaque(recurse(opaque(0)));
            }
            "allocates" => {
                let mut all = Vec::new();
                loop {
                    all.push(opaque(vec![1u8; 1 << 20]));
                }
            }
            "logs without end" => loop {
                task.log(wit::Level::Info, &"x".repeat(100_000));
            },
            "too few values" => emit_n(fixed(3, &[0; 8])),
            "too many values" => emit_n(fixed(3, &[0; 16])),
            "claims a huge length" => emit_n(fixed(u64::MAX, &[0; 12])),
            "claims nulls" => emit_n(host::NewColumn { null_count: 2, ..fixed(3, &[0; 12]) }),
            "hides nulls" => emit_n(host::NewColumn { validity: Some(&[0b101]), ..fixed(3, &[0; 12]) }),
            "short validity" => emit_n(host::NewColumn { validity: Some(&[]), ..fixed(3, &[0; 12]) }),
            "offsets on numbers" => emit_n(host::NewColumn { offsets: Some(&[0; 16]), ..fixed(3, &[0; 12]) }),
            "fewer rows" => emit_n(fixed(2, &[0; 8])),
            "offsets beyond" => emit_t(text(&offsets([0, 1, 2, 9]), b"abc")),
            "offsets backwards" => emit_t(text(&offsets([0, 2, 1, 3]), b"abc")),
            "offsets negative" => emit_t(text(&offsets([-1, 1, 2, 3]), b"abc")),
            "offsets missing" => emit_t(fixed(3, b"abc")),
            "not utf-8" => emit_t(text(&offsets([0, 1, 2, 3]), &[b'a', 0xff, b'c'])),
            "cuts a character" => emit_t(text(&offsets([0, 1, 2, 3]), "aü".as_bytes())),
            "take beyond" => {
                let three = 3u32.to_le_bytes();
                let indices = fixed(1, &three);
                let take = host::SelectionTake { port: "input", indices };
                task.begin("output", host::PartRows::Take(&[take]));
            }
            "mask too short" => {
                let mask = host::SelectionMask { port: "input", bits: &[] };
                task.begin("output", host::PartRows::Mask(mask));
            }
            "pass through from nowhere" => {
                task.begin("output", host::PartRows::Rows(3));
                task.end();
            }
            "column before begin" => good_n(),
            "end before begin" => task.end(),
            "begins twice" => {
                begin();
                begin();
            }
            "never ends" => {
                begin();
                good_n();
            }
            "column twice" => {
                begin();
                good_n();
                good_n();
            }
            "column unknown" => {
                begin();
                task.column("zzz", fixed(3, &[0; 12]));
            }
            "column missing" => {
                begin();
                good_n();
                task.end();
            }
            "second part" => {
                for _ in 0..2 {
                    begin();
                    good_n();
                    good_t();
                    task.end();
                }
            }
            "output unknown" => task.begin("zzz", host::PartRows::Rows(0)),
            "input unknown" => task.begin("output", host::PartRows::SameRows("zzz")),
            "blob into a table" => task.emit_blob("output", b"x"),
            "partial in map" => task.emit_partial(b"x"),
            "partial of nobody" => drop(task.partial(0)),
            "numbers of nobody" => drop(task.all_reduce(host::Reduction::Sum, &[1.0])),
            "declares what is planned" => task.declare("output", None, &[]),
            "reads a part that is not there" => {
                for table in task.tables("input") {
                    table.column(7, 0, 0, 3);
                }
            }
            "reads a column that is not there" => {
                for table in task.tables("input") {
                    table.column(0, 7, 0, 3);
                }
            }
            "reads rows that are not there" => {
                for table in task.tables("input") {
                    assert_eq!(table.column(0, 0, 1, 2).len, 2);
                    assert_eq!(table.column(0, 0, 3, 0).len, 0);
                    table.column(0, 0, 2, 2);
                }
            }
            "reads rows beyond all numbers" => {
                for table in task.tables("input") {
                    table.column(0, 0, 2, u64::MAX - 1);
                }
            }
            "metric that is none" => task.metric("m", f64::NAN),
            "huge part" => task.begin("output", host::PartRows::Rows(u64::MAX)),
            _ => {
                begin();
                good_n();
                good_t();
                task.end();
            }
        }
        Ok(())
    }
}
