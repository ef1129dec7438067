"""`sola upgrade`: warehouses of earlier formats."""
