//! A tunnel without everything that makes one: packets of a TUN device as UDP payloads and back, in clear, from whoever
//! is at the other end. What the benchmark of tunnels compares with: `copier DEVICE ADDRESS/BITS LOCAL:PORT REMOTE:PORT`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::net::UdpSocket;
use std::sync::Arc;

use kith_tunnel::Cidr;
use tun_rs::DeviceBuilder;

const MTU: u16 = 1420;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, own, local, remote] = arguments.as_slice() else {
        return eprintln!("usage: copier DEVICE ADDRESS/BITS LOCAL:PORT REMOTE:PORT");
    };
    let own: Cidr = own.parse().unwrap();
    let builder = DeviceBuilder::new().name(name.as_str()).mtu(MTU).enable(true);
    let tun = Arc::new(builder.ipv4(own.ip(), own.prefix_bits(), None).build_sync().unwrap());
    let socket = Arc::new(UdpSocket::bind(local).unwrap());
    socket.connect(remote).unwrap();
    println!("ready");
    let (from, to) = (Arc::clone(&tun), Arc::clone(&socket));
    std::thread::spawn(move || {
        let mut packet = vec![0; 1 << 16];
        loop {
            if let Ok(length) = from.recv(&mut packet) {
                // Nobody there is no reason to stop.
                let _ = to.send(&packet[..length]);
            }
        }
    });
    let mut packet = vec![0; 1 << 16];
    loop {
        if let Ok(length) = socket.recv(&mut packet) {
            let _ = tun.send(&packet[..length]);
        }
    }
}
