//! The TUN device of Linux, with segmentation left to the last moment in both directions.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;

use route_manager::{Route, RouteManager};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use tun_rs::{AsyncDevice, DeviceBuilder, GROTable, IDEAL_BATCH_SIZE, VIRTIO_NET_HDR_LEN};

use crate::{Cidr, MAX_PACKET_BYTES};

/// Room for what the kernel hands over at once, and for what is put together before it goes to the kernel.
const LARGE_BYTES: usize = VIRTIO_NET_HDR_LEN + MAX_PACKET_BYTES;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The program may not make one.
    #[error("making the network device {name} is not allowed")]
    NotAllowed {
        /// Its name.
        name: String,
    },
    /// The system has no TUN devices.
    #[error("the system has no TUN devices: there is no /dev/net/tun")]
    NoDriver,
    /// There is one of that name already.
    #[error("there is a network device {name} already")]
    Taken {
        /// Its name.
        name: String,
    },
    /// Something about it does not work.
    #[error("cannot {what} of the network device {name}: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Most queues of one device.
const MAX_QUEUES: usize = 4;

/// A TUN device that is up, gone when it is dropped.
///
/// It has a queue for each processor where the system has devices with several. Packets of one flow leave by the queue
/// into which the last one of that flow was written the other way, so that what belongs together stays in order as long
/// as whoever writes it stays with one.
pub struct Device {
    queues: Vec<AsyncDevice>,
    name: String,
    index: u32,
    addresses: Vec<Cidr>,
}

/// What comes out of a device, some packets at a time.
pub(super) struct Packets {
    large: Vec<u8>,
    each: Vec<Vec<u8>>,
    sizes: Vec<usize>,
    count: usize,
}

/// What goes into a device, some packets at a time; what belongs together is put together.
pub(super) struct Delivery {
    table: GROTable,
    packets: Vec<Vec<u8>>,
    count: usize,
}

impl Device {
    /// Makes the device `name` with these addresses, of which one at most is of IPv4, and brings it up.
    pub fn open(name: &str, addresses: &[Cidr], mtu: u16) -> Result<Device, DeviceError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => DeviceError::NotAllowed { name: name.to_owned() },
            io::ErrorKind::NotFound => DeviceError::NoDriver,
            io::ErrorKind::ResourceBusy => DeviceError::Taken { name: name.to_owned() },
            _ => DeviceError::Failed { what: "make use", name: name.to_owned(), source },
        };
        let build = |several: bool| {
            let mut builder = DeviceBuilder::new().name(name).mtu(mtu).enable(true).with(|builder| {
                builder.offload(true).multi_queue(several);
            });
            for address in addresses {
                builder = match address.ip() {
                    IpAddr::V4(ip) => builder.ipv4(ip, address.prefix_bits(), None),
                    IpAddr::V6(ip) => builder.ipv6(ip, address.prefix_bits()),
                };
            }
            builder.build_async()
        };
        // Somebody made it for this node, or uses it: a device with several queues would let both have it.
        let is_there = is_there(name).map_err(failed)?;
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let wanted = if is_there { 1 } else { processors.min(MAX_QUEUES) };
        let first = match build(wanted > 1) {
            Err(error) if is_there && error.kind() == io::ErrorKind::InvalidInput => {
                return Err(DeviceError::Taken { name: name.to_owned() });
            }
            // Not every system has devices with several queues.
            Err(error) if wanted > 1 && error.kind() == io::ErrorKind::InvalidInput => build(false),
            first => first,
        };
        let first = first.map_err(failed)?;
        let index = first.if_index().map_err(failed)?;
        let mut queues = vec![first];
        while queues.len() < wanted
            && let Some(Ok(next)) = queues.first().map(AsyncDevice::try_clone)
        {
            queues.push(next);
        }
        Ok(Device { queues, name: name.to_owned(), index, addresses: addresses.to_vec() })
    }

    /// How many queues it has.
    pub(super) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// One of its queues, whatever the number.
    fn queue(&self, number: usize) -> io::Result<&AsyncDevice> {
        let number = number.checked_rem(self.queues.len()).ok_or(io::ErrorKind::NotFound)?;
        self.queues.get(number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the system still has it.
    pub(super) fn is_there(&self) -> bool {
        self.queue(0).and_then(|queue| queue.if_index()).is_ok_and(|index| index == self.index)
    }

    pub(super) fn set_mtu(&self, mtu: u16) -> Result<(), DeviceError> {
        let failed = |source| DeviceError::Failed { what: "set the size", name: self.name.clone(), source };
        self.queue(0).and_then(|queue| queue.set_mtu(mtu)).map_err(failed)
    }

    /// Sends what goes to `network` into the device. Nothing to do where the system does so already because of an address
    /// of the device; the whole internet is left to the person, because the tunnel itself goes over it.
    pub(super) fn add_route(&self, network: &Cidr) -> Result<(), DeviceError> {
        let Some(route) = self.route(network) else { return Ok(()) };
        let failed = |source| DeviceError::Failed { what: "add a route", name: self.name.clone(), source };
        RouteManager::new().and_then(|mut manager| manager.add(&route)).map_err(failed)
    }

    pub(super) fn remove_route(&self, network: &Cidr) {
        if let Some(route) = self.route(network) {
            // Gone already is as good.
            let _ = RouteManager::new().and_then(|mut manager| manager.delete(&route));
        }
    }

    fn route(&self, network: &Cidr) -> Option<Route> {
        let is_known = self.addresses.iter().any(|own| own.network() == network.network());
        if is_known || network.prefix_bits() == 0 {
            return None;
        }
        Some(Route::new(network.network().ip(), network.prefix_bits()).with_if_index(self.index))
    }

    /// Waits for packets of this machine at one of its queues.
    pub(super) async fn read(&self, queue: usize, packets: &mut Packets) -> io::Result<()> {
        packets.count = 0;
        let Packets { large, each, sizes, count } = packets;
        *count = self.queue(queue)?.recv_multiple(large, each, sizes, 0).await?;
        Ok(())
    }

    /// Hands packets to this machine, by one of its queues.
    pub(super) async fn write(&self, queue: usize, into: &mut Delivery) -> io::Result<()> {
        let packets = into.packets.get_mut(..into.count).unwrap_or_default();
        into.count = 0;
        if packets.is_empty() {
            return Ok(());
        }
        self.queue(queue)?.send_multiple(&mut into.table, packets, VIRTIO_NET_HDR_LEN).await.map(drop)
    }
}

/// Whether there is a network device of that name.
fn is_there(name: &str) -> io::Result<bool> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    match name_to_index(any, name) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Packets {
    /// Room for packets of up to `most_bytes`.
    pub(super) fn of(most_bytes: usize) -> Packets {
        Packets {
            large: vec![0; LARGE_BYTES],
            each: vec![vec![0; most_bytes]; IDEAL_BATCH_SIZE],
            sizes: vec![0; IDEAL_BATCH_SIZE],
            count: 0,
        }
    }

    /// The packets that were read last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let each = self.each.iter().zip(&self.sizes).take(self.count);
        each.filter_map(|(packet, size)| packet.get(..*size))
    }
}

impl Delivery {
    pub(super) fn new() -> Delivery {
        Delivery { table: GROTable::new(), packets: Vec::new(), count: 0 }
    }

    /// Adds a packet; `false` where there is no room before the next write.
    pub(super) fn push(&mut self, packet: &[u8]) -> bool {
        if self.count == IDEAL_BATCH_SIZE {
            return false;
        }
        if self.count == self.packets.len() {
            // Room for what follows it in the same flow. What is not used is never touched.
            self.packets.push(Vec::with_capacity(LARGE_BYTES));
        }
        if let Some(buffer) = self.packets.get_mut(self.count) {
            buffer.clear();
            buffer.resize(VIRTIO_NET_HDR_LEN, 0);
            buffer.extend_from_slice(packet);
            self.count += 1;
        }
        true
    }
}
