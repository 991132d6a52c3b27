"""The pure part of the DNS server: Services -> records, question bytes -> answer bytes."""
