//! A block in which somebody pays for more logs of the escrow than nodes answer at once: settlement follows the chain through it.

use orien_chain::anvil::FaultyRpc;

use super::paying::{Here, runtime};
use super::site::Site;
use crate::kit::usdc;

/// Most logs that the node answers at once.
const ANSWERED: usize = 500;
/// What somebody has the escrow log in one block.
const CROWD: usize = 3_000;

#[test]
fn a_block_with_more_logs_than_a_node_answers_holds_up_neither_books_nor_payments() {
    runtime().block_on(async {
        let Some(site) = Site::start(1, 1).await else { return };
        let proxy = FaultyRpc::start(site.anvil().rpc()).await.unwrap();
        let chain = site.chain_of(&[proxy.rpc().clone()]);
        let mut here = Here::over(site, chain).await;
        let mut session = here.open(0, 0, "1").await;
        here.claim(&mut session, usdc("0.4"), true).await;
        proxy.limit_logs(Some(ANSWERED));
        let block = here.site.chain.crowd(CROWD).await.unwrap();
        here.settle().await;
        here.audit(&[session]).await;
        assert!(here.desk.standing().unwrap().cursor.unwrap().number >= block);
        assert!(proxy.requests("eth_getBlockReceipts") > 0, "nobody was in the way");
    });
}
