"""Behind app.py's page: who may come in, whose file is whose, and where work is done."""
