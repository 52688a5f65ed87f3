// Panics caught and not caught, channels, scoped threads, TCP, park and unpark.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{mpsc, Arc, Barrier, Condvar, Mutex, RwLock};
use std::{panic, process, thread, time::Duration};

fn channels() -> u64 {
    let (tx, rx) = mpsc::sync_channel(3);
    let makers: Vec<_> = (0..4u64)
        .map(|n| {
            let tx = tx.clone();
            thread::spawn(move || (0..5000).for_each(|i| tx.send(n * i).unwrap()))
        })
        .collect();
    drop(tx);
    let sum = rx.iter().sum();
    makers.into_iter().for_each(|m| m.join().unwrap());
    sum
}

fn panics() -> usize {
    panic::set_hook(Box::new(|_| {}));
    (0..100)
        .filter(|n| thread::spawn({ let n = *n; move || if n % 2 == 0 { panic!("{n}") } }).join().is_err())
        .count()
}

fn barrier() -> u64 {
    let gate = Arc::new(Barrier::new(5));
    let total = AtomicU64::new(0);
    thread::scope(|s| {
        for n in 0..5 {
            let (gate, total) = (gate.clone(), &total);
            s.spawn(move || {
                for round in 0..200 {
                    if gate.wait().is_leader() {
                        total.fetch_add(round, Ordering::SeqCst);
                    }
                    total.fetch_add(n, Ordering::SeqCst);
                }
            });
        }
    });
    total.into_inner()
}

fn parked() -> u64 {
    let turns = Arc::new(AtomicU64::new(0));
    let other = thread::spawn({
        let turns = turns.clone();
        move || while turns.load(Ordering::SeqCst) < 2000 {
            thread::park();
            turns.fetch_add(1, Ordering::SeqCst);
        }
    });
    while !other.is_finished() {
        other.thread().unpark();
        thread::yield_now();
    }
    other.join().unwrap();
    turns.load(Ordering::SeqCst)
}

fn network() -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut text = Vec::new();
                stream.read_to_end(&mut text).unwrap();
                stream.write_all(&text.iter().rev().copied().collect::<Vec<_>>()).unwrap();
            });
        }
    });
    let clients: Vec<_> = (0..20usize)
        .map(|n| thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&vec![n as u8; n * 10000]).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = Vec::new();
            stream.read_to_end(&mut text).unwrap();
            text.len()
        }))
        .collect();
    let total = clients.into_iter().map(|c| c.join().unwrap()).sum();
    server.join().unwrap();
    total
}

fn main() {
    println!("channels {}", channels());
    println!("panics {}", panics());
    println!("barrier {}", barrier());
    println!("parked {}", parked());
    println!("network {}", network());
    let pair = (Mutex::new(false), Condvar::new());
    let late = pair.1.wait_timeout(pair.0.lock().unwrap(), Duration::from_millis(5)).unwrap().1;
    println!("timed out {}", late.timed_out());
    let lock = RwLock::new(1);
    println!("lock {}", *lock.read().unwrap() + *lock.read().unwrap());
    let child = process::Command::new("sh").args(["-c", "echo child; exit 5"]).output().unwrap();
    println!("{:?} {}", child.status.code(), String::from_utf8_lossy(&child.stdout).trim());
    let _ = panic::take_hook();
    panic!("the end");
}
