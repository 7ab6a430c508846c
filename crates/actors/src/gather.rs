//! One answer from each of several nodes.

/// Who was asked, in order, and what came.
#[derive(Clone, Debug)]
pub(crate) struct Gather<I, T>(Vec<(I, Option<T>)>);

impl<I: Clone + PartialEq, T> Gather<I, T> {
    pub(crate) fn from(asked: Vec<I>) -> Gather<I, T> {
        Gather(asked.into_iter().map(|id| (id, None)).collect())
    }

    /// Keeps the first answer of a node that was asked; gives all of them, in order, once none is missing.
    pub(crate) fn put(&mut self, from: &I, answer: T) -> Option<Vec<T>> {
        let (_, slot) = self.0.iter_mut().find(|(id, slot)| id == from && slot.is_none())?;
        *slot = Some(answer);
        if self.0.iter().any(|(_, slot)| slot.is_none()) {
            return None;
        }
        Some(self.0.drain(..).filter_map(|(_, slot)| slot).collect())
    }

    /// Whether this node was asked and has not answered.
    pub(crate) fn awaits(&self, from: &I) -> bool {
        self.0.iter().any(|(id, slot)| id == from && slot.is_none())
    }

    /// Who has not answered.
    pub(crate) fn missing(&self) -> Vec<I> {
        self.0.iter().filter(|(_, slot)| slot.is_none()).map(|(id, _)| id.clone()).collect()
    }
}
