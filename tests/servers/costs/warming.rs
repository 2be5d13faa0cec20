//! Measures `warm`: it fills both tiers from lists of the store.

use crate::guide::Figures;
use crate::lab::Lab;
use object_store::ObjectStoreExt;
use test_support::nodes::{blob_path, digest};

pub(crate) async fn measure() -> Figures {
    let (lab, alone) = (Lab::with_redis().await, Lab::alone());
    for lab in [&lab, &alone] {
        for digest in (0..1000).map(digest) {
            let store = lab.bare.inner();
            let blob = blob_path(&digest);
            store.put(&blob, "content".into()).await.unwrap();
        }
    }
    // The blob with which the lab has loaded the scripts.
    let loaded = blob_path(&digest(u32::MAX));
    lab.bare.inner().delete(&loaded).await.unwrap();
    // This loads the other scripts into the server. The purge then removes the facts.
    lab.node.warm(None).await.unwrap();
    lab.node.purge().await.unwrap();
    let mut figures = Figures::of("Warming");
    for row in [
        "`warm` of 1,000 missing facts",
        "`warm` of 1,000 facts that Redis knows",
    ] {
        lab.node.clear_memory();
        let (warmed, measured) = lab.measure(async { lab.node.warm(None).await }).await;
        assert_eq!(warmed.unwrap().seen, 1000);
        figures.add(row, "cost", &measured);
    }
    let (warmed, measured) = alone.measure(async { alone.node.warm(None).await }).await;
    assert_eq!(warmed.unwrap().seen, 1000);
    let row = "`warm` of 1,000 missing facts without Redis";
    figures.add(row, "cost", &measured);
    figures
}
