//! The service: [`Observe`].

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tower::Service;

use super::{future::ResponseFuture, names::Names};
use crate::{call::Request, error::Error};

/// Counts the calls of `S`. See the [module docs](super).
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    names: Arc<Names>,
}

impl<S> Observe<S> {
    pub(super) fn new(inner: S, names: Arc<Names>) -> Self {
        Self { inner, names }
    }
}

impl<S, Req> Service<Req> for Observe<S>
where
    S: Service<Req>,
    S::Error: Into<Error>,
    Req: Request,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let named = self.names.of(request.name());
        // Before the inner call: what that does at once counts as well.
        let began = Instant::now();
        ResponseFuture::new(self.inner.call(request), named, began)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::sleep;
    use tower::{Layer as _, ServiceExt as _, service_fn};

    use super::*;
    use crate::{
        classify::{Class, Landed, Verdict},
        error::ErrorKind,
        metrics::CallMetrics,
        observe::ObserveLayer,
    };

    struct Named(&'static str);

    impl Request for Named {
        fn name(&self) -> &'static str {
            self.0
        }
    }

    fn failed(kind: ErrorKind, class: Class) -> Error {
        Error::new(kind, Verdict::new(class, Landed::No))
    }

    #[tokio::test(start_paused = true)]
    async fn every_call_counts_once_by_its_outcome() {
        let metrics = CallMetrics::default();
        let layer = ObserveLayer::new(metrics.clone());
        let service = layer.layer(service_fn(async |call: Named| {
            sleep(Duration::from_secs(1)).await;
            match call.0 {
                "ok" => Ok(()),
                "permanent" => Err(failed(ErrorKind::Redis, Class::Permanent)),
                "transient" => Err(failed(ErrorKind::Redis, Class::Transient)),
                "outage" => Err(failed(ErrorKind::Connect, Class::Outage)),
                "refused" => Err(failed(ErrorKind::BreakerOpen, Class::Outage)),
                _ => pending().await,
            }
        }));
        for name in ["ok", "permanent", "transient", "outage", "refused"] {
            let result = service.clone().oneshot(Named(name)).await;
            assert_eq!(result.err().map_or(name, |error| error.call()), name);
        }
        let mut dropped = Box::pin(service.oneshot(Named("cancelled")));
        assert!(futures_util::poll!(&mut dropped).is_pending());
        drop(dropped);

        let outcomes = [
            "ok",
            "permanent",
            "transient",
            "outage",
            "refused",
            "cancelled",
        ];
        for name in outcomes {
            let counted = outcomes.map(|outcome| {
                let counter = metrics.total.with_label_values(&[name, outcome]);
                (outcome, counter.get())
            });
            assert_eq!(
                counted,
                outcomes.map(|outcome| (outcome, u64::from(outcome == name)))
            );
            let seconds = metrics.seconds.with_label_values(&[name]);
            let timed = !matches!(name, "refused" | "cancelled");
            assert_eq!(seconds.get_sample_count(), u64::from(timed), "{name}");
            assert_eq!(
                seconds.get_sample_sum(),
                f64::from(u8::from(timed)),
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_already_on_the_error_stays() {
        let service = ObserveLayer::default().layer(service_fn(async |_: Named| {
            Err::<(), _>(failed(ErrorKind::Redis, Class::Outage).with_call("inner"))
        }));
        let error = service.oneshot(Named("outer")).await.expect_err("failed");
        assert_eq!(error.call(), "inner");
    }

    #[tokio::test]
    async fn many_names_are_told_apart() {
        let metrics = CallMetrics::default();
        let service = ObserveLayer::new(metrics.clone())
            .layer(service_fn(async |_: Named| Ok::<_, Error>(())));
        // Prefixes of one constant: they begin at the same address.
        let all = "abcdefghijklmnopqrstuvwxyz";
        for round in 1..=3 {
            for length in (1..all.len()).rev() {
                service
                    .clone()
                    .oneshot(Named(&all[..length]))
                    .await
                    .expect("ok");
                let counter = metrics.total.with_label_values(&[&all[..length], "ok"]);
                assert_eq!(counter.get(), round);
            }
        }
    }
}
