//! Listeners.

use super::*;

#[test]
fn an_address_is_listened_on_once_and_there_is_one() {
    assert!(faults("listen = ['127.0.0.1:1', '127.0.0.1:1']")[0].contains("twice"));
    assert!(faults("listen = '127.0.0.1:5050'")[0].contains("admin.listen"));
    assert!(faults("listen = []")[0].contains("no address"));
    good("listen = []\n[tls]\nlisten = '127.0.0.1:0'\ncert_file = 'c'\nkey_file = 'k'");
    good("listen = ['127.0.0.1:0', '127.0.0.1:0']");
}

#[test]
fn a_tls_section_says_what_it_lacks() {
    let faults = faults("[tls]\ncert_file = 'c'");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("tls.listen") && faults[1].contains("tls.key_file"));
}
