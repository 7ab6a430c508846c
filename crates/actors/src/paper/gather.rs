//! One answer from each of several nodes.

use super::Node;

/// Who was asked, in order, and what came.
#[derive(Clone, Debug)]
pub(super) struct Gather<T>(Vec<(Node, Option<T>)>);

impl<T> Gather<T> {
    pub(super) fn from(nodes: &[Node]) -> Gather<T> {
        Gather(nodes.iter().map(|node| (*node, None)).collect())
    }

    /// Keeps the first answer of a node that was asked; gives all of them, in order, once none is missing.
    pub(super) fn put(&mut self, from: &Node, answer: T) -> Option<Vec<T>> {
        let (_, slot) = self.0.iter_mut().find(|(node, slot)| node == from && slot.is_none())?;
        *slot = Some(answer);
        if self.0.iter().any(|(_, slot)| slot.is_none()) {
            return None;
        }
        Some(self.0.drain(..).filter_map(|(_, slot)| slot).collect())
    }
}
