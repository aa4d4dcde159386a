"""Networks: elements, cases and their checks, admittances and the power flow."""
