"""Building blocks of the HTML reports."""
