"""Code that several tests share: contracts, pictures and files made by hand."""
