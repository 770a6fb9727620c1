use seawall::Job;

use crate::support::{Bench, connected, drained, numbers};

#[tokio::test]
async fn jobs_arrive_in_order_through_a_kill() {
    let mut bench = Bench::new().await;
    let seawall = bench.seawall().await;
    connected(&seawall).await;
    for number in 0..100 {
        let receipt = seawall
            .enqueue(Job::new("q", number.to_string()))
            .await
            .expect("accepted");
        assert!(receipt.is_delivered());
    }
    bench.redis.kill().await.unwrap();
    for number in 100..200 {
        let receipt = seawall
            .enqueue(Job::new("q", number.to_string()))
            .await
            .expect("accepted");
        assert!(receipt.is_spooled());
    }
    bench.redis.restart().await.unwrap();
    drained(&seawall).await;
    for number in 200..300 {
        let receipt = seawall
            .enqueue(Job::new("q", number.to_string()))
            .await
            .expect("accepted");
        assert!(receipt.is_delivered(), "{receipt:?} {:?}", seawall.health());
    }
    assert_eq!(bench.list("q").await, numbers(0..300));
    assert_eq!(
        seawall
            .shutdown(std::time::Duration::from_secs(5))
            .await
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn a_shutdown_can_be_asked_for_again() {
    let mut bench = Bench::new().await;
    let seawall = bench.seawall().await;
    bench.redis.kill().await.expect("it is killed");
    let receipt = seawall.enqueue(Job::new("q", "1")).await.expect("accepted");
    assert!(receipt.is_spooled());
    for _ in 0..2 {
        let left = seawall.shutdown(std::time::Duration::from_millis(50)).await;
        assert_eq!(left.expect("it ends"), 1);
    }
    let error = seawall
        .enqueue(Job::new("q", "2"))
        .await
        .expect_err("it has ended");
    assert_eq!(error.kind(), seawall::error::ErrorKind::Closed);
}
