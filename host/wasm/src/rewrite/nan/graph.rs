//! Where values of a function come from, and of which somebody sees the bits.

use super::ops::{Lane, Shape};

/// A value.
pub(super) type Id = u32;

/// More than this of one function are not followed.
const MOST: usize = 1 << 20;

/// Passes until nothing changes are as many as loops lie in each other, and a few.
const PASSES: usize = 64;

/// Where a value comes from.
#[derive(Debug, Clone, Copy)]
enum Node {
    /// Bits that are given, in which lanes of these widths (see [`Lane::bit`]) are no NaN.
    Given(u8),
    /// A mask of lanes of this width.
    Mask(Lane),
    /// Arithmetic, by an instruction of a function.
    Made { at: u32, shape: Shape, depth: u16 },
    /// A local, as an instruction reads it.
    Read { at: u32, of: Id, depth: u16, shape: Option<Lane> },
    /// One of two.
    Either(Id, Id),
    /// Lanes of this width of one, or of two, in any order; masks stay masks or do not.
    Lanes { a: Id, b: Id, lane: Lane, keeps_masks: bool },
    /// Bits of two as a third says.
    Picked { a: Id, b: Id, mask: Id },
    /// With another sign.
    Signed(Id),
    /// Made of the bits of two.
    Bits(Id, Id),
    /// One of those that come together where control flow does.
    Phi(u32),
}

/// Somebody for whom one NaN is as good as another, as long as it is one.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// In lanes of a width.
    Blind { of: Id, lane: Lane },
    /// In lanes as wide, or narrower.
    Within { of: Id, lane: Lane },
    /// If a mask has lanes as wide, or wider.
    Masked { of: Id, mask: Id },
}

/// What is known of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Widths of the arithmetic that its NaN may come from.
    made: u8,
    /// Widths in which to give NaN one form changes nothing else of it.
    plain: u8,
    /// Widths of lanes that are all ones or all zeros.
    mask: u8,
    /// How many loops the arithmetic lies in, of that which lies in most.
    depth: u16,
}

/// Places at which NaN is to be given one form: instructions, by their number.
pub(super) struct Places {
    /// Behind arithmetic.
    pub(super) made: Vec<u32>,
    /// Behind the reading of a local, with the width of its lanes.
    pub(super) read: Vec<(u32, Lane)>,
}

/// All values of a function.
pub(super) struct Graph {
    nodes: Vec<Node>,
    /// Of which it is certain that they are masks without looking at what comes together.
    masks: Vec<bool>,
    phis: Vec<Vec<Id>>,
    uses: Vec<Use>,
    seen: Vec<Id>,
    entries: usize,
}

/// Bits that are to stay as they are.
pub(super) const GIVEN: Id = 0;

/// Nothing of it is NaN.
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

    /// Whether it is more than is followed.
    pub(super) fn is_full(&self) -> bool {
        self.nodes.len() + self.uses.len() + self.entries > MOST
    }

    /// A number that is no NaN in lanes of these widths.
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

    /// A local with its value; `shape` is that of its type, none for a vector.
    pub(super) fn read(&mut self, at: u32, of: Id, depth: u16, shape: Option<Lane>) -> Id {
        if of <= ZERO { of } else { self.add(Node::Read { at, of, depth, shape }) }
    }

    pub(super) fn either(&mut self, a: Id, b: Id) -> Id {
        if a == b { a } else { self.add(Node::Either(a, b)) }
    }

    /// Lanes of this width, of one or of two. Without masks: what comes of a mask is none.
    pub(super) fn lanes(&mut self, a: Id, b: Id, lane: Lane, keeps_masks: bool) -> Id {
        if a == b && (a <= ZERO || lane == Lane::F64 && keeps_masks) {
            return a;
        }
        self.add(Node::Lanes { a, b, lane, keeps_masks })
    }

    pub(super) fn picked(&mut self, a: Id, b: Id, mask: Id) -> Id {
        self.add(Node::Picked { a, b, mask })
    }

    /// Made of the bits of two, which are looked at if they are more than masks.
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

    /// Somebody sees all bits.
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

    /// What can be known of a value, of what is known of those that it comes from.
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
            // Wide lanes that are all ones or zeros have narrow ones that are.
            Node::Mask(Lane::F32) => Known { made: 0, plain: 0, mask: 1, depth: 0 },
            Node::Mask(Lane::F64) => Known { made: 0, plain: 0, mask: 3, depth: 0 },
            Node::Made { shape, depth, .. } => {
                Known { made: shape.lane.bit(), plain: shape.lane.bit(), mask: 0, depth }
            }
            Node::Read { of: id, .. } => of(id),
            Node::Either(a, b) => either(of(a), of(b)),
            // Narrow lanes of wide numbers, brought together anew, may be a NaN that nobody
            // computed.
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
            // The sign of a NaN would be lost if it were given its form behind this.
            Node::Signed(id) => Known { plain: 0, mask: 0, ..of(id) },
            Node::Bits(a, b) => Known { made: 0, plain: 0, mask: of(a).mask & of(b).mask, depth: 0 },
            Node::Phi(phi) => {
                let begin = Known { made: 0, plain: 3, mask: 3, depth: 0 };
                self.phis[phi as usize].iter().fold(begin, |all, id| either(all, of(*id)))
            }
        }
    }

    /// What is known of all values: the most hopeful that agrees with itself.
    fn known(&self) -> Result<Vec<Known>, TooLarge> {
        let mut known = vec![Known { made: 0, plain: 3, mask: 3, depth: 0 }; self.nodes.len()];
        // To and fro: values come after those that they are made of, but for those that come
        // together, which are found from behind.
        let (forth, back) = (0..self.nodes.len(), (0..self.nodes.len()).rev());
        for _ in 0..PASSES {
            let mut changed = false;
            for place in forth.clone().chain(back.clone()) {
                let now = self.of_node(self.nodes[place], &known);
                changed |= now != known[place];
                known[place] = now;
            }
            if !changed {
                return Ok(known);
            }
        }
        Err(TooLarge)
    }

    /// Where NaN must be given one form, so that nobody sees another.
    pub(super) fn places(mut self) -> Result<Places, TooLarge> {
        let known = self.known()?;
        let of = |id: Id| known[id as usize];
        let mut work = std::mem::take(&mut self.seen);
        for looks in &self.uses {
            let (id, fits) = match *looks {
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
                    // What a loop adds up is looked at behind it, once.
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
