//! Maps by digest that all workers share, divided into shards with a lock each.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_threads::lock;
use millrace_types::Digest;

/// Shards of a map.
const SHARDS: usize = 16;

/// Values in shards, found by digest.
#[derive(Debug)]
pub(crate) struct Shards<T>([T; SHARDS]);

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T> Shards<T> {
    /// The shard of a digest.
    pub(crate) fn of(&self, digest: &impl Digest) -> &T {
        &self.0[digest.shard(SHARDS)]
    }

    /// All shards.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

/// A cache of limited size that drops the oldest values first. No value is dropped while a
/// lock is held.
pub(crate) struct SizedCache<K, V> {
    limit: usize,
    size: AtomicUsize,
    shards: Shards<Mutex<Shard<K, V>>>,
    /// The number of the next value.
    next: AtomicUsize,
}

struct Shard<K, V> {
    values: HashMap<K, (V, usize)>,
    /// Keys by age, each with the number of its value.
    order: VecDeque<(usize, K)>,
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Digest, V: Clone> SizedCache<K, V> {
    /// An empty cache for values of `limit` bytes in all.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, size: AtomicUsize::new(0), shards: Shards::default(), next: AtomicUsize::new(0) }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        lock(self.shards.of(key)).values.get(key).map(|(value, _)| value.clone())
    }

    /// Stores a value of `size` bytes, unless the key has one or it exceeds the limit alone.
    pub(crate) fn put(&self, key: K, value: V, size: usize) {
        if size > self.limit {
            return;
        }
        {
            let mut shard = lock(self.shards.of(&key));
            if shard.values.contains_key(&key) {
                return;
            }
            shard.values.insert(key, (value, size));
            shard.order.push_back((self.next.fetch_add(1, Ordering::Relaxed), key));
        }
        let mut all = self.size.fetch_add(size, Ordering::Relaxed) + size;
        while all > self.limit {
            let dropped = self.take_oldest().map_or(0, |(_, size)| size);
            all = self.size.fetch_sub(dropped, Ordering::Relaxed) - dropped;
        }
    }

    fn take_oldest(&self) -> Option<(V, usize)> {
        let oldest = |shard: &&Mutex<Shard<K, V>>| lock(shard).order.front().map_or(usize::MAX, |(number, _)| *number);
        let Shard { values, order } = &mut *lock(self.shards.iter().min_by_key(oldest)?);
        let (_, key) = order.pop_front()?;
        values.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use millrace_types::ColumnDigest;

    use super::*;

    fn name(number: usize) -> ColumnDigest {
        ColumnDigest::of(&number.to_le_bytes())
    }

    #[test]
    fn the_oldest_values_are_dropped_when_the_cache_is_full() {
        let cache = SizedCache::new(100);
        for number in 0..50 {
            cache.put(name(number), number, 10);
            cache.put(name(number), 0, 10);
            let present: Vec<usize> = (0..50).filter_map(|number| cache.get(&name(number))).collect();
            assert_eq!(present, (number.saturating_sub(9)..=number).collect::<Vec<_>>());
        }
        // A value beyond the limit is not stored, and drops nothing.
        cache.put(name(50), 50, 101);
        assert_eq!((cache.get(&name(50)), cache.get(&name(40))), (None, Some(40)));
        cache.put(name(51), 51, 100);
        assert_eq!((cache.get(&name(51)), cache.get(&name(49))), (Some(51), None));
    }

    #[test]
    fn many_threads_stay_within_the_limit() {
        let cache = SizedCache::new(100);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let cache = &cache;
                scope.spawn(move || (0..2000).for_each(|i| cache.put(name(thread * 1000 + i), i, 1 + i % 40)));
            }
        });
        let shards = cache.shards.iter().map(|shard| lock(shard).values.values().map(|(_, size)| size).sum::<usize>());
        assert_eq!(shards.sum::<usize>(), cache.size.load(Ordering::Relaxed));
        assert!(cache.size.load(Ordering::Relaxed) <= 100);
    }
}
