//! Rewrites one function so that it counts: analyses it first, and then writes it.

use wasmparser::{BinaryReader, FunctionBody, Operator};

use super::super::binary::{MOST_LOCALS, Malformed, number};
use super::super::op::{
    CALL, EMPTY, END, GLOBAL_GET, GLOBAL_SET, I32, I64, I64_EXTEND_U, I64_LT_S, I64_SUB, IF, LOCAL_GET, LOCAL_SET,
    LOCAL_TEE, UNREACHABLE,
};
use super::declared::{Declared, FAR, FuelChecks, at_most, constant};

/// The maximum cost of a function without loops and calls that counts in the global and does not
/// check its count: its caller does.
const SMALL: i64 = 64;

/// The maximum that is counted for a 64-bit length. No memory has as many bytes.
const MAX_BULK: i64 = 1 << 40;

/// The function that counts, and the offsets of its branches that are seldom taken.
#[expect(clippy::too_many_lines, reason = "one match over all instructions")]
pub(super) fn counted(
    of: &Declared,
    bytes: &[u8],
    params: usize,
    checks: FuelChecks,
) -> Result<(Vec<u8>, Vec<u32>), Malformed> {
    let body = FunctionBody::new(BinaryReader::new(bytes, 0));
    let mut first = params as u32;
    for group in body.get_locals_reader()? {
        first = first.saturating_add(group?.0);
    }
    if first as usize > MOST_LOCALS {
        return Err(Malformed);
    }
    let Found { segments, loops, lengths, is_small, calls } = Found::of(&body, of)?;
    let cost = segments.iter().sum::<i64>();
    let (mut segments, mut loops) = (segments.into_iter(), loops.into_iter());
    let mut reader = BinaryReader::new(bytes, 0);
    let groups = reader.read_var_u32()?;
    let declared = reader.original_position() as usize;
    let mut reader = body.get_operators_reader()?;
    let mut start = reader.original_position() as usize;
    let mut counter = Counter {
        declared: of,
        out: Vec::with_capacity(bytes.len() + bytes.len() / 4 + 16),
        seldom: Vec::new(),
        local: (!is_small || cost > SMALL).then_some(first),
    };
    number(&mut counter.out, groups + 2);
    counter.out.extend_from_slice(&bytes[declared..start]);
    // Locals for the count and a 64-bit length, and for a 32-bit length.
    counter.out.extend([1 + u8::from(lengths[1]), I64, u8::from(lengths[0]), I32]);
    let lengths = [first + 1 + u32::from(lengths[1]), first + 1];
    counter.load();
    match checks {
        FuelChecks::AtCalls if !calls => counter.check_lost(),
        _ => counter.check(),
    }
    counter.pay(segments.next());
    let (mut depth, mut on_stack) = (0u32, None);
    while !reader.eof() {
        let op = reader.read()?;
        let end = reader.original_position() as usize;
        let instruction = &bytes[start..end];
        start = end;
        let kind = Kind::of(&op)?;
        match kind {
            Kind::Plain => {
                if let Some(is_long) = in_bulk(of, &op)
                    && few(on_stack).is_none()
                {
                    counter.in_bulk(is_long, lengths[usize::from(is_long)]);
                }
            }
            Kind::Call | Kind::Leave => counter.save(),
            Kind::End if depth == 0 => counter.save(),
            Kind::Branch if leaves(&op, depth)? => counter.save(),
            _ => {}
        }
        counter.out.extend_from_slice(instruction);
        match kind {
            Kind::Block => depth += 1,
            Kind::Loop => {
                depth += 1;
                match loops.next() {
                    Some(true) if checks == FuelChecks::AtCalls => counter.check_lost(),
                    _ => counter.check(),
                }
                counter.pay(segments.next());
            }
            Kind::If => {
                depth += 1;
                counter.pay(segments.next());
            }
            Kind::Else => counter.pay(segments.next()),
            Kind::End => {
                let next = segments.next();
                if depth > 0 {
                    depth -= 1;
                    counter.pay(next);
                }
            }
            Kind::Call => counter.load(),
            _ => {}
        }
        on_stack = known(&op);
    }
    Ok((counter.out, counter.seldom))
}

/// Whether an instruction moves in bulk as many bytes or elements as the top of the stack says,
/// and if so, whether that number has 64 bits.
fn in_bulk(of: &Declared, op: &Operator<'_>) -> Option<bool> {
    let memory = |index: &u32| of.memories.get(*index as usize).copied().unwrap_or_default();
    let table = |index: &u32| of.tables.get(*index as usize).copied().unwrap_or_default();
    Some(match op {
        Operator::MemoryCopy { dst_mem, src_mem } => memory(dst_mem) && memory(src_mem),
        Operator::MemoryFill { mem } => memory(mem),
        Operator::TableCopy { dst_table, src_table } => table(dst_table) && table(src_table),
        Operator::TableFill { table: index } | Operator::TableGrow { table: index } => table(index),
        Operator::MemoryInit { .. } | Operator::TableInit { .. } => false,
        _ => return None,
    })
}

/// The result of analysing a function.
struct Found {
    /// The cost of each segment: one begins at the beginning of the function, of a loop and of an
    /// arm of an `if`, and after each end.
    segments: Vec<i64>,
    /// For each loop, whether it is without calls.
    loops: Vec<bool>,
    /// Whether a local is needed for a 32-bit and for a 64-bit length while it is counted.
    lengths: [bool; 2],
    /// Whether it has neither calls nor loops.
    is_small: bool,
    /// Whether it calls functions that may return.
    calls: bool,
}

impl Found {
    fn of(body: &FunctionBody<'_>, declared: &Declared) -> Result<Self, Malformed> {
        let mut found =
            Self { segments: Vec::new(), loops: Vec::new(), lengths: [false; 2], is_small: true, calls: false };
        // The first segment includes the cost of the call.
        let (mut now, mut is_dead, mut on_stack) = (1, false, None);
        // For each open block, the innermost loop that contains its code.
        let mut open: Vec<Option<usize>> = vec![None];
        let mut ops = body.get_operators_reader()?.into_iter().peekable();
        while let Some(op) = ops.next() {
            let op = op?;
            let kind = Kind::of(&op)?;
            // A function that is called before `unreachable` reports an error and does not return.
            let mut calls = kind == Kind::Call && !matches!(ops.peek(), Some(Ok(Operator::Unreachable)));
            let mut cost = cost(&op);
            if let Some(is_long) = in_bulk(declared, &op) {
                if let Some(few) = few(on_stack) {
                    cost += few;
                } else {
                    found.lengths[usize::from(is_long)] = true;
                    calls = true;
                }
            }
            on_stack = known(&op);
            // An instruction that calls the host keeps no values in registers either, and takes
            // long.
            calls |= is_done_by_the_host(&op);
            if !is_dead {
                now += cost;
            }
            found.calls |= calls || kind == Kind::Leave && !matches!(op, Operator::Return);
            let around = open.last().copied().flatten();
            if let Some(around) = around.filter(|_| calls) {
                found.loops[around] = false;
            }
            found.is_small &= !calls && !matches!(kind, Kind::Loop | Kind::Leave);
            match kind {
                Kind::Loop => {
                    open.push(Some(found.loops.len()));
                    found.loops.push(true);
                }
                Kind::Block | Kind::If => open.push(around),
                Kind::End => {
                    open.pop();
                    let outside = open.last().copied().flatten();
                    // A loop around a loop with calls has calls too.
                    if let (Some(inner), Some(outer)) = (around, outside)
                        && inner != outer
                    {
                        found.loops[outer] &= found.loops[inner];
                    }
                }
                _ => {}
            }
            match kind {
                Kind::Loop | Kind::If | Kind::Else | Kind::End => {
                    found.segments.push(std::mem::take(&mut now));
                    is_dead = false;
                }
                Kind::Leave => is_dead = true,
                _ => is_dead |= matches!(op, Operator::Br { .. } | Operator::BrTable { .. } | Operator::Unreachable),
            }
        }
        Ok(found)
    }
}

/// Writes the code that counts.
struct Counter<'d> {
    declared: &'d Declared,
    out: Vec<u8>,
    /// The offsets in `out` of branches that are seldom taken.
    seldom: Vec<u32>,
    /// The local that holds the count; a small function has none, and counts in the global.
    local: Option<u32>,
}

impl Counter<'_> {
    fn write(&mut self, op: u8, index: u32) {
        self.out.push(op);
        number(&mut self.out, index);
    }

    fn load(&mut self) {
        if let Some(local) = self.local {
            self.write(GLOBAL_GET, self.declared.global);
            self.write(LOCAL_SET, local);
        }
    }

    fn save(&mut self) {
        if let Some(local) = self.local {
            self.write(LOCAL_GET, local);
            self.write(GLOBAL_SET, self.declared.global);
        }
    }

    /// Counts the cost of a segment.
    fn pay(&mut self, cost: Option<i64>) {
        let Some(cost) = cost.filter(|cost| *cost > 0) else { return };
        let (get, set, index) = match self.local {
            Some(local) => (LOCAL_GET, LOCAL_SET, local),
            None => (GLOBAL_GET, GLOBAL_SET, self.declared.global),
        };
        self.write(get, index);
        constant(&mut self.out, cost);
        self.out.push(I64_SUB);
        self.write(set, index);
    }

    /// Reports to the host if a slice is used.
    fn check(&mut self) {
        let Some(local) = self.local else { return };
        self.if_below(0, local);
        self.write(LOCAL_GET, local);
        self.write(CALL, self.declared.tell);
        self.write(LOCAL_SET, local);
        self.out.push(END);
    }

    /// In a loop or function without calls: ends here if far too much is used.
    fn check_lost(&mut self) {
        let Some(local) = self.local else { return };
        self.if_below(-FAR, local);
        self.write(LOCAL_GET, local);
        self.write(CALL, self.declared.tell + 1);
        self.out.extend([UNREACHABLE, END]);
    }

    fn if_below(&mut self, bound: i64, local: u32) {
        self.write(LOCAL_GET, local);
        constant(&mut self.out, bound);
        self.out.push(I64_LT_S);
        self.seldom.push(self.out.len() as u32);
        self.out.extend([IF, EMPTY]);
    }

    /// Counts what an instruction is about to move in bulk, by the length on the stack.
    fn in_bulk(&mut self, is_long: bool, spare: u32) {
        let Some(local) = self.local else { return };
        self.write(LOCAL_TEE, spare);
        self.write(LOCAL_GET, local);
        if is_long {
            at_most(&mut self.out, spare, MAX_BULK);
        } else {
            self.write(LOCAL_GET, spare);
            self.out.push(I64_EXTEND_U);
        }
        self.out.push(I64_SUB);
        self.write(LOCAL_SET, local);
        self.check();
    }
}

/// The value on top of the stack after an instruction, if it is constant.
fn known(op: &Operator<'_>) -> Option<i64> {
    match op {
        Operator::I32Const { value } => Some(i64::from(*value as u32)),
        Operator::I64Const { value } => Some(*value),
        _ => None,
    }
}

/// A constant length so small that it is counted with the instruction.
fn few(known: Option<i64>) -> Option<i64> {
    known.filter(|known| (0..=128).contains(known))
}

fn is_done_by_the_host(op: &Operator<'_>) -> bool {
    matches!(
        op,
        Operator::MemoryGrow { .. }
            | Operator::TableGrow { .. }
            | Operator::TableGet { .. }
            | Operator::TableSet { .. }
            | Operator::RefFunc { .. }
            | Operator::DataDrop { .. }
            | Operator::ElemDrop { .. }
    )
}

fn cost(op: &Operator<'_>) -> i64 {
    match op {
        Operator::Nop
        | Operator::Drop
        | Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::Unreachable
        | Operator::Return
        | Operator::Else
        | Operator::End => 0,
        _ => 1,
    }
}

/// What an instruction means for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Block,
    Loop,
    If,
    Else,
    End,
    Branch,
    /// A call of another function, which counts too.
    Call,
    /// Leaves this function.
    Leave,
}

impl Kind {
    fn of(op: &Operator<'_>) -> Result<Self, Malformed> {
        Ok(match op {
            Operator::Block { .. } => Self::Block,
            Operator::Loop { .. } => Self::Loop,
            Operator::If { .. } => Self::If,
            Operator::Else => Self::Else,
            Operator::End => Self::End,
            Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::BrOnNull { .. }
            | Operator::BrOnNonNull { .. } => Self::Branch,
            Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. } => Self::Call,
            Operator::Return
            | Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::ReturnCallRef { .. } => Self::Leave,
            // Other control flow, which this engine does not support.
            Operator::TryTable { .. }
            | Operator::Throw { .. }
            | Operator::ThrowRef
            | Operator::Try { .. }
            | Operator::Catch { .. }
            | Operator::CatchAll
            | Operator::Delegate { .. }
            | Operator::Rethrow { .. }
            | Operator::BrOnCast { .. }
            | Operator::BrOnCastFail { .. }
            | Operator::BrOnCastDescEq { .. }
            | Operator::BrOnCastDescEqFail { .. }
            | Operator::Resume { .. }
            | Operator::ResumeThrow { .. }
            | Operator::ResumeThrowRef { .. }
            | Operator::Suspend { .. }
            | Operator::Switch { .. } => return Err(Malformed),
            _ => Self::Plain,
        })
    }
}

/// Whether a branch within `depth` blocks may leave the function.
fn leaves(op: &Operator<'_>, depth: u32) -> Result<bool, Malformed> {
    Ok(match op {
        Operator::Br { relative_depth }
        | Operator::BrIf { relative_depth }
        | Operator::BrOnNull { relative_depth }
        | Operator::BrOnNonNull { relative_depth } => *relative_depth >= depth,
        Operator::BrTable { targets } => {
            let mut leaves = targets.default() >= depth;
            for target in targets.targets() {
                leaves |= target? >= depth;
            }
            leaves
        }
        _ => false,
    })
}
