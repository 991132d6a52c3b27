"""nft's nouns and verbs: tables, chains, sets, elements, transactions. For any table. Pure."""
