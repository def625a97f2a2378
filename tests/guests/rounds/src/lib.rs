//! A step in rounds that sums a column, or breaks the rules of rounds. `tests/rounds.rs` has the
//! expected results.

use millrace_sdk::prelude::*;

/// Params of the step.
#[derive(Params)]
pub struct Sums {
    /// The column to sum.
    column: String,
    /// The number of rounds with the same result, one after the other.
    #[param(default = 1u64)]
    rounds: u64,
    /// The attack of the guest with the first row.
    #[param(default = String::new())]
    attack: String,
}

impl Step for Sums {
    fn ports() -> Ports {
        Ports::new().mapped("input", "any table").blob("sums", "sum, least, greatest, rows")
    }

    fn plan(&self, plan: &mut Plan) -> Result<()> {
        plan.read("input", &self.column, Kind::Number, "column").map(drop)
    }
}

/// A value that the optimiser must not see through.
fn opaque<T>(value: T) -> T {
    std::hint::black_box(value)
}

fn all<const N: usize>(task: &Task, how: Reduction, mut values: [f64; N]) -> Result<[f64; N]> {
    task.all_reduce(how, &mut values)?;
    Ok(values)
}

impl Rounds for Sums {
    fn rounds(&self, task: &Task) -> Result<()> {
        let table = task.table("input")?;
        let rows = table.rows() as f64;
        if self.attack == "alone" {
            for _ in 0..opaque(4_000_000_000_u64) {
                opaque(());
            }
            return task.emit_blob("sums", b"[]");
        }
        let [before] = all(task, Reduction::Before, [rows])?;
        let (mut sum, mut least, mut greatest) = (0.0, f64::INFINITY, f64::NEG_INFINITY);
        for part in table.parts() {
            for value in part.f64(&self.column)?.iter().flatten() {
                (sum, least, greatest) = (sum + value, value.min(least), value.max(greatest));
            }
        }
        let is_first = before == 0.0;
        match self.attack.as_str() {
            "one ends" if is_first => return Ok(()),
            "all end but one" if !is_first => return Ok(()),
            "other length" if is_first => drop(all(task, Reduction::Sum, [1.0, 2.0])?),
            "other reduction" if is_first => drop(all(task, Reduction::Max, [1.0])?),
            "other round" if is_first => drop(all(task, Reduction::Sum, [1.0])?),
            "one fails at once" if is_first => return Err(Error::new("no")),
            "one fails" if !is_first => return Err(Error::new("no").in_column(&self.column).at_row(1)),
            "one panics" if is_first => panic!("at the disco"),
            "all loop" | "one fails at once" => loop {
                opaque(());
            },
            "one loops" if is_first => loop {
                opaque(());
            },
            // In a loop without calls.
            "one takes long" if is_first => {
                for _ in 0..opaque(1_000_000_000) {
                    opaque(());
                }
            }
            "partial" => task.emit_partial(b"x")?,
            "much memory" => {
                // Less than the limit for each guest, more than it for all.
                let much = opaque(vec![1u8; 20 << 20]);
                all(task, Reduction::Sum, [f64::from(much[much.len() - 1])])?;
            }
            "much fuel" => {
                for _ in 0..opaque(400_000_000) {
                    opaque(());
                }
            }
            "many numbers" => task.all_reduce(Reduction::Sum, &mut vec![1.0; 7 << 20])?,
            "not a number" => drop(all(task, Reduction::Sum, [f64::NAN])?),
            "other metric" => task.metric("before", before),
            "other blob" => return task.emit_blob("sums", before.to_string().as_bytes()),
            _ => {}
        }
        for _ in 1..self.rounds {
            all(task, Reduction::Sum, [sum])?;
        }
        let sums = all(task, Reduction::Sum, [sum, rows])?;
        let [least] = all(task, Reduction::Min, [least])?;
        let [greatest] = all(task, Reduction::Max, [greatest])?;
        (0..2).for_each(|_| task.log(Level::Info, "all guests are here"));
        task.metric("rows", sums[1]);
        if self.attack == "first blob" && !is_first {
            return Ok(());
        }
        task.emit_blob("sums", json!([sums[0], least, greatest, sums[1]]).to_string().as_bytes())
    }
}

millrace_sdk::register!(Sums: rounds);
