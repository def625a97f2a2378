//! Follows the values of a function through its stack, its locals and its branches.
//!
//! Locals are values too: which assignment a read refers to is found as in the construction of
//! static single assignment form (Braun et al., "Simple and Efficient Construction of Static
//! Single Assignment Form", 2013), only for locals that hold floats. Values that stay on the
//! stack across a block are unaffected by it; values that are passed with a branch, or are the
//! result of a block, are treated as observed.
//!
//! Long because all instructions share one state: the stack, the locals and the open blocks.

use std::collections::HashMap;

use wasmparser::{BlockType, FrameKind, ModuleArity, Operator, SubType, ValType};

use super::super::binary::Types;
use super::graph::{GIVEN, Graph, Id, Places, ZERO};
use super::ops::{Effect, Lane, effect};

/// Why a function is not followed.
pub(super) enum Lost {
    /// It contains an instruction that is not known here, or it is too large.
    Unknown,
    /// It is invalid; the compiler will refuse it.
    Invalid,
}

/// A basic block: a run of instructions that branches only at its end.
#[derive(Default)]
struct Run {
    /// Its predecessors.
    before: Vec<u32>,
    /// Whether it may get more predecessors: the rest of its loop is not processed yet.
    is_open: bool,
    /// The locals that were read meanwhile, and their phis, which are filled when it is closed.
    waiting: Vec<(u32, Id)>,
}

struct Frame {
    ty: BlockType,
    kind: FrameKind,
    /// The number of values below it on the stack.
    height: usize,
    /// The first run of a loop; the run before an `if`.
    run: u32,
    /// The runs that branch to its end.
    ends: Vec<u32>,
}

/// The state of following a function.
struct Flow<'t> {
    types: &'t Types,
    graph: Graph,
    frames: Vec<Frame>,
    stack: Vec<Id>,
    runs: Vec<Run>,
    now: u32,
    is_dead: bool,
    depth: u16,
    /// The value on top of the stack, if the last instruction pushed a constant.
    constant: Option<i32>,
    /// The number of locals that are params.
    params: usize,
    /// The maximum number of entries in `values`.
    max_values: usize,
    /// For each local, whether it holds a float, and the width of a scalar.
    locals: Vec<Option<Option<Lane>>>,
    /// The value of a local at the end of a run, as far as known.
    values: HashMap<(u32, u32), Id>,
}

impl ModuleArity for Flow<'_> {
    fn sub_type_at(&self, index: u32) -> Option<&SubType> {
        self.types.types.get(index as usize)
    }

    fn tag_type_arity(&self, _: u32) -> Option<(u32, u32)> {
        None
    }

    fn type_index_of_function(&self, index: u32) -> Option<u32> {
        self.types.functions.get(index as usize).copied()
    }

    fn func_type_of_cont_type(&self, _: &wasmparser::ContType) -> Option<&wasmparser::FuncType> {
        None
    }

    fn sub_type_of_ref_type(&self, _: &wasmparser::RefType) -> Option<&SubType> {
        None
    }

    fn control_stack_height(&self) -> u32 {
        self.frames.len() as u32
    }

    fn label_block(&self, depth: u32) -> Option<(BlockType, FrameKind)> {
        let frame = self.frames.iter().rev().nth(depth as usize)?;
        Some((frame.ty, frame.kind))
    }
}

/// Whether a type may hold floats, and the width of a scalar.
fn float(ty: ValType) -> Option<Option<Lane>> {
    match ty {
        ValType::F32 => Some(Some(Lane::F32)),
        ValType::F64 => Some(Some(Lane::F64)),
        ValType::V128 => Some(None),
        _ => None,
    }
}

/// The maximum number of lookups of locals in the runs of one function.
const MAX_LOOKUPS: usize = 1 << 18;

/// The maximum for all functions of a module: beyond it the search is not worth its time.
pub(super) const ALL_LOOKS: usize = 4 << 20;

/// Finds where a function must give NaN one form. `locals` are its params and the locals that it
/// declares; the first `params` of them are params. The lookups are subtracted from `budget`.
pub(super) fn places<'a>(
    types: &Types,
    function: u32,
    locals: &[ValType],
    params: usize,
    budget: &mut usize,
    instructions: impl Iterator<Item = wasmparser::Result<Operator<'a>>>,
) -> Result<Places, Lost> {
    let mut flow = Flow {
        types,
        graph: Graph::new(),
        frames: Vec::new(),
        stack: Vec::new(),
        runs: vec![Run::default()],
        now: 0,
        is_dead: false,
        depth: 0,
        constant: None,
        params,
        max_values: MAX_LOOKUPS.min(*budget),
        locals: locals.iter().map(|ty| float(*ty)).collect(),
        values: HashMap::new(),
    };
    let ty = BlockType::FuncType(*types.functions.get(function as usize).ok_or(Lost::Invalid)?);
    // Its params are locals, and not on the stack.
    flow.frames.push(Frame { ty, kind: FrameKind::Block, height: 0, run: 0, ends: Vec::new() });
    for (at, op) in (0u32..).zip(instructions) {
        let step = flow.step(at, &op.map_err(|_| Lost::Invalid)?);
        if step.is_err() || flow.graph.is_full() || flow.runs.len() > MAX_VALUES {
            *budget = budget.saturating_sub(flow.values.len());
            return step.and(Err(Lost::Unknown));
        }
    }
    *budget = budget.saturating_sub(flow.values.len());
    if !flow.frames.is_empty() {
        return Err(Lost::Invalid);
    }
    flow.graph.places().map_err(|_| Lost::Unknown)
}

/// The maximum number of values on the stack, and of runs of a function.
const MAX_VALUES: usize = 1 << 20;

impl Flow<'_> {
    fn pop(&mut self) -> Result<Id, Lost> {
        let frame = self.frames.last().ok_or(Lost::Invalid)?;
        if self.stack.len() > frame.height {
            return self.stack.pop().ok_or(Lost::Invalid);
        }
        // In unreachable code the stack has any values that are needed.
        if self.is_dead { Ok(ZERO) } else { Err(Lost::Invalid) }
    }

    fn look(&mut self, count: u32) -> Result<(), Lost> {
        for _ in 0..count {
            let value = self.pop()?;
            self.graph.look(value);
        }
        Ok(())
    }

    fn push(&mut self, value: Id, count: u32) -> Result<(), Lost> {
        if self.stack.len() + count as usize > MAX_VALUES {
            return Err(Lost::Unknown);
        }
        self.stack.extend(std::iter::repeat_n(value, count as usize));
        Ok(())
    }

    fn new_run(&mut self, before: Vec<u32>, is_open: bool) -> u32 {
        self.runs.push(Run { before, is_open, waiting: Vec::new() });
        (self.runs.len() - 1) as u32
    }

    /// The value of a local at the end of a run. Searches backwards through the runs until the
    /// local is set or several runs meet; their phi is added to `open`, to be filled later.
    fn find(&mut self, run: u32, local: u32, open: &mut Vec<(u32, Id)>) -> Result<Id, Lost> {
        let mut passed = Vec::new();
        let mut run = run;
        let value = loop {
            if let Some(value) = self.values.get(&(run, local)) {
                break *value;
            }
            if run == 0 {
                // Params have the bits that the caller passed; other locals begin as zero.
                break if (local as usize) < self.params { GIVEN } else { ZERO };
            }
            passed.push(run);
            if self.values.len() + passed.len() > self.max_values {
                return Err(Lost::Unknown);
            }
            let Run { before, is_open, .. } = &self.runs[run as usize];
            match before.as_slice() {
                [] if !is_open => break ZERO, // unreachable
                [one] if !is_open => run = *one,
                _ => {
                    let phi = self.graph.phi();
                    if *is_open {
                        self.runs[run as usize].waiting.push((local, phi));
                    } else {
                        open.push((run, phi));
                    }
                    break phi;
                }
            }
        };
        for run in passed {
            self.values.insert((run, local), value);
        }
        Ok(value)
    }

    /// Fills the phis of a local that were left open.
    fn fill(&mut self, local: u32, mut open: Vec<(u32, Id)>) -> Result<(), Lost> {
        while let Some((run, phi)) = open.pop() {
            for before in self.runs[run as usize].before.clone() {
                let value = self.find(before, local, &mut open)?;
                self.graph.flows(value, phi);
            }
            if self.graph.is_full() {
                return Err(Lost::Unknown);
            }
        }
        Ok(())
    }

    fn local(&mut self, local: u32) -> Result<Id, Lost> {
        let mut open = Vec::new();
        let value = self.find(self.now, local, &mut open)?;
        self.fill(local, open)?;
        Ok(value)
    }

    fn frame(&mut self, label: u32) -> Result<&mut Frame, Lost> {
        let index = self.frames.len().checked_sub(1 + label as usize).ok_or(Lost::Invalid)?;
        Ok(&mut self.frames[index])
    }

    /// A branch from here.
    fn branch(&mut self, label: u32) -> Result<(), Lost> {
        if self.is_dead {
            return Ok(());
        }
        let now = self.now;
        let frame = self.frame(label)?;
        if frame.kind == FrameKind::Loop {
            let head = frame.run;
            self.runs[head as usize].before.push(now);
        } else {
            frame.ends.push(now);
        }
        Ok(())
    }

    fn die(&mut self) -> Result<(), Lost> {
        let height = self.frames.last().ok_or(Lost::Invalid)?.height;
        self.stack.truncate(height);
        self.is_dead = true;
        self.now = self.new_run(Vec::new(), false);
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "one match over all effects")]
    fn step(&mut self, at: u32, op: &Operator<'_>) -> Result<(), Lost> {
        let effect = effect(op);
        if effect == Effect::Unknown {
            return Err(Lost::Unknown);
        }
        let (takes, gives) = op.operator_arity(self).ok_or(Lost::Invalid)?;
        match effect {
            Effect::Make { from, to } => {
                for _ in 0..takes {
                    let value = self.pop()?;
                    self.graph.blind(value, from);
                }
                let made = self.graph.made(at, to, self.depth);
                self.push(made, gives)?;
            }
            Effect::Blind(lane) | Effect::Compare(lane) => {
                for _ in 0..takes {
                    let value = self.pop()?;
                    self.graph.blind(value, lane);
                }
                let is_mask = matches!(effect, Effect::Compare(_));
                let value = if is_mask { self.graph.mask(lane) } else { GIVEN };
                self.push(value, gives)?;
            }
            Effect::Mask(lane) => {
                self.look(takes)?;
                let mask = self.graph.mask(lane);
                self.push(mask, gives)?;
            }
            Effect::Logic => {
                let b = self.pop()?;
                let a = if takes == 2 { self.pop()? } else { b };
                let value = self.graph.bits(a, b);
                self.push(value, gives)?;
            }
            Effect::Under => {
                let (b, a) = (self.pop()?, self.pop()?);
                let is_and = matches!(op, Operator::V128And);
                let value = if self.graph.is_mask(a) && self.graph.is_mask(b) {
                    self.graph.bits(a, b)
                } else if self.graph.is_mask(b) {
                    self.graph.masked(a, b);
                    self.graph.either(a, ZERO)
                } else if is_and && self.graph.is_mask(a) {
                    self.graph.masked(b, a);
                    self.graph.either(b, ZERO)
                } else {
                    self.graph.bits(a, b)
                };
                self.push(value, gives)?;
            }
            Effect::Shift(lane) => {
                self.look(takes)?;
                let is_sign = self.constant == Some(if lane == Lane::F32 { 31 } else { 63 });
                let value = if is_sign { self.graph.mask(lane) } else { GIVEN };
                self.push(value, gives)?;
            }
            Effect::Sign(lane) => {
                if takes == 2 {
                    self.look(1)?;
                }
                let value = self.pop()?;
                self.graph.blind(value, lane);
                let value = self.graph.signed(value);
                self.push(value, gives)?;
            }
            Effect::Move(lane) | Effect::Shuffle(lane) | Effect::Absolute(lane) => {
                let b = self.pop()?;
                let a = if takes == 2 { self.pop()? } else { b };
                for value in [a, b] {
                    match effect {
                        Effect::Shuffle(_) => self.graph.within(value, lane),
                        _ => self.graph.blind(value, lane),
                    }
                }
                let keeps_masks = !matches!(effect, Effect::Absolute(_));
                let value = self.graph.lanes(a, b, lane, keeps_masks);
                self.push(value, gives)?;
            }
            Effect::Pick => {
                let (mask, b, a) = (self.pop()?, self.pop()?, self.pop()?);
                self.graph.look(mask);
                self.graph.masked(a, mask);
                self.graph.masked(b, mask);
                let value = self.graph.picked(a, b, mask);
                self.push(value, gives)?;
            }
            Effect::Select => {
                let (_, b, a) = (self.pop()?, self.pop()?, self.pop()?);
                let value = self.graph.either(a, b);
                self.push(value, gives)?;
            }
            Effect::Plain(lanes) => {
                self.look(takes)?;
                let value = self.graph.plain(lanes);
                self.push(value, gives)?;
            }
            Effect::Look => {
                self.look(takes)?;
                self.push(GIVEN, gives)?;
            }
            Effect::Drop => {
                self.pop()?;
            }
            Effect::Flow => self.control(at, op, takes, gives)?,
            Effect::Unknown => {}
        }
        self.constant = match op {
            Operator::I32Const { value } => Some(*value),
            _ => None,
        };
        Ok(())
    }

    #[expect(clippy::too_many_lines, reason = "one match over all control instructions")]
    fn control(&mut self, at: u32, op: &Operator<'_>, takes: u32, gives: u32) -> Result<(), Lost> {
        match *op {
            Operator::LocalGet { local_index } => {
                let kind = *self.locals.get(local_index as usize).ok_or(Lost::Invalid)?;
                let value = match kind {
                    Some(shape) => {
                        let value = self.local(local_index)?;
                        self.graph.read(at, value, self.depth, shape)
                    }
                    None => GIVEN,
                };
                self.push(value, 1)?;
            }
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                let value = self.pop()?;
                if self.locals.get(local_index as usize).ok_or(Lost::Invalid)?.is_some() {
                    self.values.insert((self.now, local_index), value);
                }
                self.push(value, gives)?;
            }
            Operator::Block { blockty } | Operator::If { blockty } => {
                self.look(takes)?;
                let is_if = matches!(op, Operator::If { .. });
                let kind = if is_if { FrameKind::If } else { FrameKind::Block };
                let (height, run) = (self.stack.len(), self.now);
                self.frames.push(Frame { ty: blockty, kind, height, run, ends: Vec::new() });
                if is_if {
                    self.now = self.new_run(self.alive(run), false);
                }
                let params = if is_if { takes - 1 } else { takes };
                self.push(GIVEN, params)?;
            }
            Operator::Loop { blockty } => {
                self.look(takes)?;
                let head = self.new_run(self.alive(self.now), true);
                let height = self.stack.len();
                self.frames.push(Frame { ty: blockty, kind: FrameKind::Loop, height, run: head, ends: Vec::new() });
                self.now = head;
                self.depth = self.depth.saturating_add(1);
                self.push(GIVEN, takes)?;
            }
            Operator::Else => {
                self.look(takes)?;
                self.branch(0)?;
                let frame = self.frames.last_mut().ok_or(Lost::Invalid)?;
                if frame.kind != FrameKind::If {
                    return Err(Lost::Invalid);
                }
                frame.kind = FrameKind::Else;
                let (before, height) = (frame.run, frame.height);
                self.stack.truncate(height);
                self.is_dead = self.is_dead_run(before);
                self.now = self.new_run(self.alive(before), false);
                self.push(GIVEN, gives)?;
            }
            Operator::End => self.end(takes, gives)?,
            Operator::Br { relative_depth } => {
                self.look(takes)?;
                self.branch(relative_depth)?;
                self.die()?;
            }
            Operator::BrIf { relative_depth } => {
                self.look(takes)?;
                self.branch(relative_depth)?;
                if !self.is_dead {
                    self.now = self.new_run(vec![self.now], false);
                }
                self.push(GIVEN, gives)?;
            }
            Operator::BrTable { ref targets } => {
                self.look(takes)?;
                for target in targets.targets() {
                    self.branch(target.map_err(|_| Lost::Invalid)?)?;
                }
                self.branch(targets.default())?;
                self.die()?;
            }
            Operator::Return => {
                self.look(takes)?;
                self.die()?;
            }
            Operator::Unreachable => self.die()?,
            _ => return Err(Lost::Unknown),
        }
        Ok(())
    }

    fn end(&mut self, takes: u32, gives: u32) -> Result<(), Lost> {
        self.look(takes)?;
        let frame = self.frames.pop().ok_or(Lost::Invalid)?;
        if self.stack.len() != frame.height && !self.is_dead {
            return Err(Lost::Invalid);
        }
        self.stack.truncate(frame.height);
        let mut ends = frame.ends;
        if frame.kind == FrameKind::Loop {
            self.depth = self.depth.saturating_sub(1);
            let head = &mut self.runs[frame.run as usize];
            head.is_open = false;
            for (local, phi) in std::mem::take(&mut head.waiting) {
                self.fill(local, vec![(frame.run, phi)])?;
            }
            // The end of a loop is reached only by falling through.
        } else {
            if !self.is_dead {
                ends.push(self.now);
            }
            if frame.kind == FrameKind::If && !self.is_dead_run(frame.run) {
                ends.push(frame.run);
            }
            self.is_dead = ends.is_empty();
            self.now = self.new_run(ends, false);
        }
        self.push(GIVEN, gives)?;
        Ok(())
    }

    /// A run as the predecessor of another, if it is reachable.
    fn alive(&self, run: u32) -> Vec<u32> {
        if self.is_dead_run(run) { Vec::new() } else { vec![run] }
    }

    /// Whether a run is unreachable. The first run has no predecessors and is reachable.
    fn is_dead_run(&self, run: u32) -> bool {
        run != 0 && self.runs[run as usize].before.is_empty()
    }
}
