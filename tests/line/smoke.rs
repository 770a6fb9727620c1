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
