"""Celery's entry: `celery -A worker.celery_app worker --pool threads -Q cpu`."""

from app.config import get_settings
from app.logs import configure_logs
from app.queue import make_celery
from worker import tasks
from worker.broker import read_patiently

settings = get_settings()
configure_logs(as_json=settings.log_json)
read_patiently()
app = make_celery(settings)
tasks.register(app)
