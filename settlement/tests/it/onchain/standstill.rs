//! Nodes that stand still: what they give is old by settlement's own clock, and nothing is promised on it.

use orien_chain::anvil::FaultyRpc;
use orien_protocol::time::Millis;

use super::paying::{Here, runtime};
use super::reconciling::refusal;
use super::site::Site;

fn notice(here: &Here) -> Option<String> {
    let status = here.desk.chain_status().unwrap();
    status.notices.into_iter().find(|(code, _)| *code == "standstill").map(|(_, notice)| notice.text)
}

#[test]
fn nothing_is_promised_on_nodes_that_all_stand_still_and_each_is_named_with_its_block() {
    runtime().block_on(async {
        let Some(site) = Site::start(1, 1).await else { return };
        let chain = site.chain.chain().clone();
        let mut here = Here::over(site, chain).await;
        let (now, head) = (here.now().await, here.site.chain.chain().latest_block().await.unwrap());
        assert_eq!((refusal(&here.site, &here.desk, now), notice(&here)), (None, None));
        // A quarter of an hour for finality, and half of one beside it.
        for (minutes, told, refused) in [(25, false, false), (32, true, false), (44, true, false), (46, true, true), (600, true, true)] {
            let later = now.plus(Millis::from_secs(minutes * 60));
            here.follower.step(later, &mut || None).await.unwrap();
            let text = notice(&here);
            assert_eq!((text.is_some(), refusal(&here.site, &here.desk, later).is_some()), (told, refused), "{minutes}: {text:?}");
            if let Some(text) = text {
                let named = format!("{} stands at block {} of ", here.site.anvil().rpc().host(), head.number);
                assert!(text.contains(&named) && text.contains(&head.time.0.to_string()), "{text}");
            }
        }
        // It makes blocks again.
        here.site.anvil().advance(600 * 60).await.unwrap();
        here.site.chain.settle().await.unwrap();
        here.step().await;
        assert_eq!((refusal(&here.site, &here.desk, here.now().await), notice(&here)), (None, None));
    });
}

#[test]
fn one_node_that_stands_still_among_three_is_named_and_asked_last() {
    runtime().block_on(async {
        let Some(site) = Site::start(1, 1).await else { return };
        let mut proxies = Vec::new();
        for _ in 0..3 {
            proxies.push(FaultyRpc::start(site.anvil().rpc()).await.unwrap());
        }
        let nodes: Vec<_> = proxies.iter().map(|proxy| proxy.rpc().clone()).collect();
        let chain = site.chain_of(&nodes);
        let mut here = Here::over(site, chain).await;
        proxies[0].stand_still(Some(here.site.chain.chain().latest_block().await.unwrap().number));
        here.site.anvil().advance(3 * 3600).await.unwrap();
        here.site.chain.settle().await.unwrap();
        // The node that stands still is asked first: what it calls final is not newer.
        here.step().await;
        let (now, text) = (here.now().await, notice(&here).unwrap());
        assert!(refusal(&here.site, &here.desk, now).is_some(), "{text}");
        assert!(text.contains(&format!("{} stands at", nodes[0].host())), "{text}");
        here.step().await;
        assert_eq!((refusal(&here.site, &here.desk, here.now().await), notice(&here)), (None, None), "the two others agree");
    });
}
