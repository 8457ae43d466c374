"""Sessions of a web application: tokens, cookies and the session manager over a canister."""
