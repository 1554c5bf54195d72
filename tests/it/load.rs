//! Twenty clients with twelve-megapixel photos at once: all answered, within the memory that was promised.

use crate::caudal::{Caudal, tree_memory};
use crate::pictures::{jpeg, scene};

const CLIENTS: usize = 20;
const BUDGET: u64 = 1 << 30;

#[tokio::test]
async fn twenty_large_photos_at_once_stay_within_a_gibibyte() {
    let caudal = Caudal::petalert().await;
    let photo = jpeg(&scene(1, 4000, 3000), 90);
    assert!(photo.len() > 2 << 20, "a photo of {} bytes is no fair load", photo.len());
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
    assert!(peak > 0, "it was looked at");
    assert!(peak < BUDGET, "{} MiB", peak >> 20);
}
