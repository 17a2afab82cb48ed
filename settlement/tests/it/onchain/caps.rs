//! Claims that the operator's caps leave out: they are said with their amounts, and tried again when the caps are others.

use std::sync::Arc;

use orien_chain::Wei;
use orien_protocol::money::Usdc;
use orien_settlement::books::Parked;
use orien_settlement::paying::Policy;

use super::paying::{AtDesk, Here, runtime};
use super::site::works;
use crate::kit::usdc;

fn capped(payout: Option<Usdc>, day: Option<Usdc>) -> Policy {
    Policy { payout_cap: payout, day_cap: day, ..works().policy }
}

#[test]
fn a_claim_above_a_cap_is_said_with_its_amount_and_the_cap_and_sent_when_settlement_starts_with_a_higher_one() {
    runtime().block_on(async {
        let Some(here) = Here::start(1, 2).await else { return };
        let mut sessions = [here.open(0, 0, "1").await, here.open(0, 1, "1").await];
        here.claim(&mut sessions[0], usdc("0.4"), false).await;
        let now = here.now().await;
        let Here { site, mut desk, follower } = here;
        drop(follower);
        let channel = sessions[0].terms.channel();
        for (policy, why, code) in [
            (capped(None, Some(usdc("0.399999"))), Parked::OverDayCap, "over_day_cap"),
            (capped(Some(usdc("0.3")), Some(usdc("0.3"))), Parked::OverCap, "over_cap"),
        ] {
            assert_eq!(desk.take_off(&policy, Wei(1), now).unwrap(), None);
            let status = desk.chain_status().unwrap();
            assert_eq!((status.parked, status.waiting), (vec![(channel, why, usdc("0.4"))], 0));
            let text = &status.notices.iter().find(|(found, _)| *found == code).unwrap().1.text;
            let cap = policy.payout_cap.or(policy.day_cap).unwrap();
            assert!(text.contains("0.4 USDC") && text.contains(&format!("cap of {cap} USDC")), "{text}");
            // Whatever it was left out for, it is looked at anew at the next start.
            drop(desk);
            desk = Arc::new(site.desk());
            assert_eq!(desk.chain_status().unwrap().parked, []);
        }
        let mut here = Here { follower: site.follower(AtDesk(Arc::clone(&desk)), site.chain.chain().clone()), site, desk };
        here.settle().await;
        here.audit(&sessions[..1]).await;
        let notices = here.desk.chain_status().unwrap().notices;
        assert!(notices.iter().all(|(code, _)| !code.starts_with("over")), "{notices:?}");
    });
}
