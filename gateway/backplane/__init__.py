"""What the workers share: a directory of connections, a ledger of calls, a mailbox for each worker."""
