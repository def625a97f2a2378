//! Where the values of a function come from, and of which values the bits are observed.

use super::ops::{Lane, Shape};

/// The index of a value.
pub(super) type Id = u32;

/// The maximum number of values, uses and inputs of phis of one function.
const MAX_SIZE: usize = 1 << 20;

/// The maximum number of passes until nothing changes: needed are as many as the depth of nested
/// loops, and a few.
const PASSES: usize = 64;

/// Where a value comes from.
#[derive(Debug, Clone, Copy)]
enum Node {
    /// Determined bits, in which no lane of these widths (see [`Lane::bit`]) is NaN.
    Given(u8),
    /// A mask of lanes of this width.
    Mask(Lane),
    /// The result of arithmetic, at an instruction of the function.
    Made { at: u32, shape: Shape, depth: u16 },
    /// A local, read by an instruction.
    Read { at: u32, of: Id, depth: u16, shape: Option<Lane> },
    /// One of two values.
    Either(Id, Id),
    /// Lanes of this width of one or two values, in any order; whether masks remain masks.
    Lanes { a: Id, b: Id, lane: Lane, keeps_masks: bool },
    /// Bits of two values, picked by a third.
    Picked { a: Id, b: Id, mask: Id },
    /// A value with another sign.
    Signed(Id),
    /// A combination of the bits of two values.
    Bits(Id, Id),
    /// One of the values that meet where control flow meets.
    Phi(u32),
}

/// A use for which all NaNs are equivalent.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// In lanes of this width.
    Blind { of: Id, lane: Lane },
    /// In lanes of this width, or narrower.
    Within { of: Id, lane: Lane },
    /// In lanes of the width of the mask, or narrower.
    Masked { of: Id, mask: Id },
}

/// What is known about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// The widths of the arithmetic from which its NaN may come.
    made: u8,
    /// The widths in which giving NaN one form changes nothing else in it.
    plain: u8,
    /// The widths of lanes that are all ones or all zeros.
    mask: u8,
    /// The maximum number of loops around the arithmetic.
    depth: u16,
}

/// The instructions, by index, after which NaN must be given one form.
pub(super) struct Places {
    /// Arithmetic.
    pub(super) made: Vec<u32>,
    /// Reads of locals, with the width of the lanes.
    pub(super) read: Vec<(u32, Lane)>,
}

/// All values of a function.
pub(super) struct Graph {
    nodes: Vec<Node>,
    /// For each node, whether it is certainly a mask, without examining phis.
    masks: Vec<bool>,
    phis: Vec<Vec<Id>>,
    uses: Vec<Use>,
    /// Values of which all bits are observed.
    seen: Vec<Id>,
    /// The number of inputs of all phis.
    entries: usize,
}

/// A value with bits that must not change.
pub(super) const GIVEN: Id = 0;

/// A value without NaN.
pub(super) const ZERO: Id = 1;

/// The function is too large to be followed.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Graph {
    pub(super) fn new() -> Self {
        let nodes = vec![Node::Given(0), Node::Given(3)];
        Self { nodes, masks: vec![false; 2], phis: Vec::new(), uses: Vec::new(), seen: Vec::new(), entries: 0 }
    }

    fn add(&mut self, node: Node) -> Id {
        let is_mask = match node {
            Node::Mask(_) => true,
            Node::Read { of, .. } => self.is_mask(of),
            Node::Bits(a, b) => self.is_mask(a) && self.is_mask(b),
            _ => false,
        };
        self.nodes.push(node);
        self.masks.push(is_mask);
        (self.nodes.len() - 1) as Id
    }

    /// Whether it is too large to be followed.
    pub(super) fn is_full(&self) -> bool {
        self.nodes.len() + self.uses.len() + self.entries > MAX_SIZE
    }

    /// A number without NaN in lanes of these widths.
    pub(super) fn plain(&mut self, lanes: u8) -> Id {
        match lanes {
            0 => GIVEN,
            3 => ZERO,
            lanes => self.add(Node::Given(lanes)),
        }
    }

    pub(super) fn mask(&mut self, lane: Lane) -> Id {
        self.add(Node::Mask(lane))
    }

    pub(super) fn made(&mut self, at: u32, shape: Shape, depth: u16) -> Id {
        self.add(Node::Made { at, shape, depth })
    }

    /// A read of a local with this value; `shape` is the width of its type, `None` for a vector.
    pub(super) fn read(&mut self, at: u32, of: Id, depth: u16, shape: Option<Lane>) -> Id {
        if of <= ZERO { of } else { self.add(Node::Read { at, of, depth, shape }) }
    }

    pub(super) fn either(&mut self, a: Id, b: Id) -> Id {
        if a == b { a } else { self.add(Node::Either(a, b)) }
    }

    /// Lanes of this width, of one or two values. Without `keeps_masks`, masks do not remain
    /// masks.
    pub(super) fn lanes(&mut self, a: Id, b: Id, lane: Lane, keeps_masks: bool) -> Id {
        if a == b && (a <= ZERO || lane == Lane::F64 && keeps_masks) {
            return a;
        }
        self.add(Node::Lanes { a, b, lane, keeps_masks })
    }

    pub(super) fn picked(&mut self, a: Id, b: Id, mask: Id) -> Id {
        self.add(Node::Picked { a, b, mask })
    }

    /// A combination of the bits of two values, which are observed unless they are masks.
    pub(super) fn bits(&mut self, a: Id, b: Id) -> Id {
        self.look(a);
        self.look(b);
        self.add(Node::Bits(a, b))
    }

    pub(super) fn signed(&mut self, of: Id) -> Id {
        if of <= ZERO { GIVEN } else { self.add(Node::Signed(of)) }
    }

    /// Whether a value is certainly a mask.
    pub(super) fn is_mask(&self, of: Id) -> bool {
        self.masks[of as usize]
    }

    pub(super) fn phi(&mut self) -> Id {
        self.phis.push(Vec::new());
        self.add(Node::Phi((self.phis.len() - 1) as u32))
    }

    pub(super) fn flows(&mut self, from: Id, phi: Id) {
        if let Node::Phi(phi) = self.nodes[phi as usize] {
            self.phis[phi as usize].push(from);
            self.entries += 1;
        }
    }

    /// All bits of a value are observed.
    pub(super) fn look(&mut self, of: Id) {
        if of > ZERO {
            self.seen.push(of);
        }
    }

    pub(super) fn blind(&mut self, of: Id, lane: Lane) {
        if of > ZERO {
            self.uses.push(Use::Blind { of, lane });
        }
    }

    pub(super) fn within(&mut self, of: Id, lane: Lane) {
        if of > ZERO {
            self.uses.push(Use::Within { of, lane });
        }
    }

    pub(super) fn masked(&mut self, of: Id, mask: Id) {
        if of > ZERO {
            self.uses.push(Use::Masked { of, mask });
        }
    }

    /// What is known about a node, from what is known about its operands.
    fn of_node(&self, node: Node, known: &[Known]) -> Known {
        let of = |id: Id| known[id as usize];
        let either = |a: Known, b: Known| Known {
            made: a.made | b.made,
            plain: a.plain & b.plain,
            mask: a.mask & b.mask,
            depth: a.depth.max(b.depth),
        };
        match node {
            Node::Given(plain) => Known { made: 0, plain, mask: 0, depth: 0 },
            // If wide lanes are all ones or all zeros, so are the narrow lanes in them.
            Node::Mask(Lane::F32) => Known { made: 0, plain: 0, mask: 1, depth: 0 },
            Node::Mask(Lane::F64) => Known { made: 0, plain: 0, mask: 3, depth: 0 },
            Node::Made { shape, depth, .. } => {
                Known { made: shape.lane.bit(), plain: shape.lane.bit(), mask: 0, depth }
            }
            Node::Read { of: id, .. } => of(id),
            Node::Either(a, b) => either(of(a), of(b)),
            // Narrow lanes of wide numbers, recombined, may form a NaN that was never computed.
            Node::Lanes { a, b, lane, keeps_masks } => {
                let both = either(of(a), of(b));
                let fits = if lane == Lane::F32 { 1 } else { 3 };
                let mask = if keeps_masks { both.mask & fits } else { 0 };
                Known { plain: both.plain & fits, mask, ..both }
            }
            Node::Picked { a, b, mask } => {
                let (both, lanes) = (either(of(a), of(b)), of(mask).mask);
                Known { plain: both.plain & lanes, mask: both.mask & lanes, ..both }
            }
            // Giving NaN one form after this would lose its sign.
            Node::Signed(id) => Known { plain: 0, mask: 0, ..of(id) },
            Node::Bits(a, b) => Known { made: 0, plain: 0, mask: of(a).mask & of(b).mask, depth: 0 },
            Node::Phi(phi) => {
                let begin = Known { made: 0, plain: 3, mask: 3, depth: 0 };
                self.phis[phi as usize].iter().fold(begin, |all, id| either(all, of(*id)))
            }
        }
    }

    /// What is known about all values: the most optimistic solution that is consistent.
    fn known(&self) -> Result<Vec<Known>, TooLarge> {
        let mut known = vec![Known { made: 0, plain: 3, mask: 3, depth: 0 }; self.nodes.len()];
        // In both directions: values come after their operands, except for phis, whose operands
        // may come later.
        let (forth, back) = (0..self.nodes.len(), (0..self.nodes.len()).rev());
        for _ in 0..PASSES {
            let mut changed = false;
            for index in forth.clone().chain(back.clone()) {
                let now = self.of_node(self.nodes[index], &known);
                changed |= now != known[index];
                known[index] = now;
            }
            if !changed {
                return Ok(known);
            }
        }
        Err(TooLarge)
    }

    /// Where NaN must be given one form, so that no other form is observed.
    pub(super) fn places(mut self) -> Result<Places, TooLarge> {
        let known = self.known()?;
        let of = |id: Id| known[id as usize];
        let mut work = std::mem::take(&mut self.seen);
        for used in &self.uses {
            let (id, fits) = match *used {
                Use::Blind { of: id, lane } => (id, of(id).made & !lane.bit() == 0),
                Use::Within { of: id, lane: Lane::F64 } => (id, of(id).made != 3),
                Use::Within { of: id, lane } => (id, of(id).made & !lane.bit() == 0),
                Use::Masked { of: id, mask } => (id, of(id).made != 3 && of(id).made & !of(mask).mask == 0),
            };
            work.extend((!fits).then_some(id));
        }
        let mut done = vec![false; self.nodes.len()];
        let mut places = Places { made: Vec::new(), read: Vec::new() };
        while let Some(id) = work.pop() {
            if std::mem::replace(&mut done[id as usize], true) || of(id).made == 0 {
                continue;
            }
            match self.nodes[id as usize] {
                Node::Made { at, .. } => places.made.push(at),
                Node::Read { at, of: value, depth, shape } => {
                    let Known { made, plain, depth: deep, .. } = of(value);
                    let lane = match made {
                        1 => Some(Lane::F32),
                        2 => Some(Lane::F64),
                        _ => None,
                    };
                    // A value that a loop accumulates is given its form once, after the loop.
                    match lane
                        .filter(|lane| deep > depth && plain & lane.bit() != 0 && shape.is_none_or(|s| s == *lane))
                    {
                        Some(lane) => places.read.push((at, lane)),
                        None => work.push(value),
                    }
                }
                Node::Either(a, b) | Node::Lanes { a, b, .. } | Node::Picked { a, b, .. } => work.extend([a, b]),
                Node::Signed(value) => work.push(value),
                Node::Phi(phi) => work.extend(&self.phis[phi as usize]),
                Node::Given(_) | Node::Mask(_) | Node::Bits(..) => {}
            }
        }
        Ok(places)
    }
}
