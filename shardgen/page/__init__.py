"""How a page is put together that opens from the disk and needs nothing but itself: pictures, plots, one HTML file."""
