"""The methods: what each reads of a row, and its loss."""
