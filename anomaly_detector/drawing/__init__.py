"""Pictures and pages: HTML reports."""
