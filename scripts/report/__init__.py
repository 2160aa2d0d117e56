"""What scripts/report.py is made of: reading run folders, tables, pictures, and the page."""
