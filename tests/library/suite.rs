//! Runs the whole of `object_store::integration` through every stack without Redis.

use test_support::stacks;

#[tokio::test]
async fn over_memory() {
    stacks::over_memory(None).await;
}

#[tokio::test]
async fn over_a_filesystem() {
    stacks::over_a_filesystem(None).await;
}

#[tokio::test]
async fn with_prefix_store_inside_and_outside() {
    stacks::with_prefix_store_inside_and_outside(None).await;
}

#[tokio::test]
async fn with_limit_store_inside_and_outside() {
    stacks::with_limit_store_inside_and_outside(None).await;
}
