//! Throw-away measurement.
#![allow(missing_docs, clippy::unwrap_used)]
use claviger_ports::suite::*;
use claviger_ports::*;
use claviger_store::SqlStore;
use std::time::Instant;

fn fat(mut w: Write) -> Write {
    if let Effect::PutKey { row, added, .. } = &mut w.effect {
        row.meta = vec![7; 300].into();
        for a in added {
            a.data = Sealed(vec![5; 128].into());
        }
    }
    w
}
fn rss() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned()
}
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (path, n, rounds): (&str, u64, u64) = (&a[1], a[2].parse().unwrap(), a[3].parse().unwrap());
    let name = |i: u64| format!("team{}/app:{:08x}", i % 97, i.wrapping_mul(2654435761) as u32);
    let fresh = !std::path::Path::new(path).exists();
    let t = Instant::now();
    let store = SqlStore::open_sqlite(path).await.unwrap();
    println!("open {:?}", t.elapsed());
    let sealer = CountingSealer::default();
    if fresh {
        store.initialise(&first_head(), &[]).await.unwrap();
        let t = Instant::now();
        let all: Vec<u64> = (0..n).collect();
        for c in all.chunks(5000) {
            let b: Vec<Write> = c.iter().map(|i| fat(create(&name(*i), i + 1))).collect();
            store.commit(&b, &sealer).await.unwrap();
        }
        println!("filled {n} in {:?}", t.elapsed());
    }
    let (t, c) = (Instant::now(), cpu());
    let (mut k, mut v, mut chunks) = (0u64, 0u64, 0u64);
    let mut visit = |rows: Vec<Loaded>| {
        chunks += 1;
        for r in rows {
            match r {
                Loaded::Key(..) => k += 1,
                Loaded::Version(..) => v += 1,
                _ => {}
            }
        }
        Ok(())
    };
    store.load(4096, &mut visit).await.unwrap();
    println!("load {k} keys {v} versions {chunks} chunks: {:?} cpu {:.2}s {}", t.elapsed(), cpu() - c, rss());
    let mut generation = vec![0u64; n as usize];
    if !fresh {
        return;
    }
    for g in &mut generation {
        *g = 1;
    }
    let mut x = 88172645463325252u64;
    for size in [64u64, 256, 1] {
        let (t, c) = (Instant::now(), cpu());
        let mut lat = Vec::new();
        let mut done = 0;
        let r = if size == 1 { rounds / 2 } else { rounds * 64 / size };
        for _ in 0..r {
            let mut picked = std::collections::BTreeSet::new();
            while (picked.len() as u64) < size {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                picked.insert(x % n);
            }
            let b: Vec<Write> = picked
                .iter()
                .map(|i| {
                    let g = generation[*i as usize];
                    generation[*i as usize] += 1;
                    fat(add_version(&name(*i), i + 1, g))
                })
                .collect();
            let t = Instant::now();
            done += store.commit(&b, &sealer).await.unwrap().iter().filter(|o| o.revision().is_some()).count();
            lat.push(t.elapsed());
        }
        lat.sort();
        let e = t.elapsed();
        println!(
            "batch {size}: {done} writes in {r} commits, {e:?}, {:.0}/s, cpu/write {:.1}us, p50 {:?} p99 {:?} max {:?}",
            done as f64 / e.as_secs_f64(),
            (cpu() - c) * 1e6 / done as f64,
            lat[lat.len() / 2],
            lat[lat.len() * 99 / 100],
            lat[lat.len() - 1]
        );
    }
    let t = Instant::now();
    store.close().await;
    println!("close {:?}", t.elapsed());
}
