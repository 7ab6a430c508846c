use std::sync::Arc;

use bytes::Bytes;
use kith_identity::membership::NodeId;
use kith_sansio::system;
use kith_sansio::wire::{Reader, Writer};

use super::membership::Membership;
use crate::gate::Gate;
use crate::message::Parcel;
use crate::value::Value;

/// Tells whether a row is on the disk.
pub type Written = Box<dyn FnOnce(bool) + Send>;

/// Where values outlive the process: rows by their keys, written in the order in which they are handed in. Nothing in a
/// row is secret: it is what the node tells everybody who asks.
pub trait Shelf: Send + Sync + 'static {
    /// Writes a row, over another one of its key. Returns at once; `written` hears how it went, whatever thread it is on.
    fn put(&self, key: &NodeId, row: Vec<u8>, written: Written);

    /// Removes a row.
    fn remove(&self, key: &NodeId);
}

/// The row of a value: `by [32] ‖ kind u8 ‖ bytes`.
pub(super) fn row(value: &Value, by: &NodeId) -> Vec<u8> {
    let mut out = Writer::new();
    out.bytes(by.as_bytes()).u8(value.kind).bytes(&value.bytes);
    out.finish()
}

/// The values in rows that prove themselves still, and who brought them; and the keys of all other rows.
pub(super) fn read(
    rows: Vec<(NodeId, Vec<u8>)>,
    membership: &Arc<dyn Membership>,
) -> (Vec<(Value, NodeId)>, Vec<NodeId>) {
    let mut gate = super::membership::Doorkeeper(Arc::clone(membership));
    let now = system::utc();
    let (mut values, mut broken) = (Vec::new(), Vec::new());
    for (key, row) in rows {
        let value = parcel(key, &row).and_then(|(parcel, by)| Some((gate.value(&parcel, now)?, by)));
        match value {
            Some(value) => values.push(value),
            None => broken.push(key),
        }
    }
    (values, broken)
}

fn parcel(key: NodeId, row: &[u8]) -> Option<(Parcel, NodeId)> {
    let mut reader = Reader::new(row);
    let (by, kind) = (NodeId::from_bytes(reader.array().ok()?), reader.u8().ok()?);
    Some((Parcel { kind, key, bytes: Bytes::copy_from_slice(reader.rest()) }, by))
}
