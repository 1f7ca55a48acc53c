"""Networks that PotNet is compared with, one file each."""
