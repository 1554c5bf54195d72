//! Memory limit: twenty clients post 12 MP photos at once, all are answered, and memory stays below the limit.

use crate::caudal::{Caudal, tree_memory};
use crate::test_images::{jpeg, scene};

const CLIENTS: usize = 20;
/// Resident memory of the service and its broker.
const LIMIT: u64 = 1 << 30;

#[tokio::test]
async fn twenty_large_photos_at_once_stay_within_a_gibibyte() {
    let caudal = Caudal::petalert().await;
    let photo = jpeg(&scene(1, 4000, 3000), 90);
    assert!(photo.len() > 2 << 20, "{} bytes: too small to load the service", photo.len());
    let mut peak = 0;
    for _ in 0..2 {
        let posts = (0..CLIENTS).map(|_| caudal.post_file("/embeddings/generate", photo.clone()));
        let mut all = std::pin::pin!(futures_util::future::join_all(posts));
        let answers = loop {
            tokio::select! {
                answers = &mut all => break answers,
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {
                    peak = peak.max(tree_memory(caudal.pid()));
                }
            }
        };
        for answer in answers {
            assert_eq!(answer.status(), 200);
        }
    }
    assert!(peak > 0, "memory was never measured");
    assert!(peak < LIMIT, "{} MiB", peak >> 20);
}
