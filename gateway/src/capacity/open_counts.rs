//! Counts what each client has open, streams or connections, so that one client cannot take all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::identity::caller::Client;

/// Open streams or connections by client.
#[derive(Default)]
pub struct OpenCounts {
    open: Mutex<HashMap<Client, usize>>,
}

/// One stream or connection; counted until it is dropped.
pub struct OpenCount {
    counts: Arc<OpenCounts>,
    clients: Vec<Client>,
}

impl OpenCounts {
    /// Counts one more for each of the given clients, each with its limit, or for none if one of them is at its limit.
    ///
    /// # Errors
    /// The limit of the client that has reached it.
    pub fn open(self: &Arc<Self>, clients: Vec<(Client, usize)>) -> Result<OpenCount, usize> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (client, most) in &clients {
            if open.get(client).copied().unwrap_or_default() >= *most {
                return Err(*most);
            }
        }
        let clients: Vec<Client> = clients.into_iter().map(|(client, _)| client).collect();
        for client in &clients {
            *open.entry(*client).or_default() += 1;
        }
        Ok(OpenCount { counts: Arc::clone(self), clients })
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        let mut open = self.counts.open.lock().unwrap_or_else(PoisonError::into_inner);
        for client in &self.clients {
            if let Some(count) = open.get_mut(client) {
                *count -= 1;
                if *count == 0 {
                    open.remove(client);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::of_address(text.parse().unwrap())
    }

    #[test]
    fn a_client_at_its_limit_is_refused() {
        let counts = Arc::<OpenCounts>::default();
        let _first = counts.open(vec![(client("10.0.0.1"), 1)]).unwrap();
        assert_eq!(counts.open(vec![(client("10.0.0.1"), 1)]).err(), Some(1));
    }

    #[test]
    fn what_is_refused_counts_for_nobody() {
        let counts = Arc::<OpenCounts>::default();
        let (ann, here) = (client("10.0.0.1"), client("10.0.0.2"));
        let _first = counts.open(vec![(ann, 2), (here, 3)]).unwrap();
        let _second = counts.open(vec![(ann, 2), (here, 3)]).unwrap();
        assert!(counts.open(vec![(here, 3), (ann, 2)]).is_err());
        assert_eq!(counts.open.lock().unwrap()[&here], 2);
    }

    #[test]
    fn streams_are_counted_until_they_close() {
        let counts = Arc::<OpenCounts>::default();
        let (ann, here) = (client("10.0.0.1"), client("10.0.0.2"));
        let first = counts.open(vec![(ann, 2), (here, 3)]).unwrap();
        let _second = counts.open(vec![(ann, 2), (here, 3)]).unwrap();
        assert!(counts.open(vec![(here, 3), (ann, 2)]).is_err());
        drop(first);
        drop(counts.open(vec![(ann, 2)]).unwrap());
        assert_eq!(counts.open.lock().unwrap().values().sum::<usize>(), 2);
    }
}
